"""Questions whose answers stand in passages of a corpus."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from labkit.data.kinds import Dataset


@dataclass(frozen=True)
class Passage:
    """A piece of a document, and the document's title."""

    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """A question, the passage that answers it, and the answers that count as right."""

    text: str
    passage: int
    """Index of the passage."""
    answers: tuple[str, ...]
    """Different spellings, the first of which stands at `start`."""
    start: int
    """Characters of the passage before `answers[0]`."""


@dataclass(frozen=True)
class QuestionData(Dataset):
    """A corpus of passages, and questions about it; no document has questions in two splits."""

    passages: tuple[Passage, ...]
    train: tuple[Question, ...]
    valid: tuple[Question, ...]
    test: tuple[Question, ...]

    def check(self) -> None:
        """Raises DataError for a split without questions, a first answer that does not stand at its
        place, or a document that has questions in two splits. Its message gives numbers, no texts.
        """
        self._refuse_empty("train", "valid", "test")
        titles: dict[str, str] = {}
        for split in ("train", "valid", "test"):
            for number, row in enumerate(getattr(self, split)):
                where = f"question {number} of its {split} split"
                self._refuse_unless(
                    0 <= row.passage < len(self.passages),
                    f"{where} names passage {row.passage}, and it has {len(self.passages):,}",
                )
                passage = self.passages[row.passage]
                self._refuse_unless(
                    bool(row.text.strip() and row.answers and row.answers[0].strip()),
                    f"{where} has an empty text or no answer",
                )
                self._refuse_unless(
                    passage.text.startswith(row.answers[0], row.start) and row.start >= 0,
                    f"{where}: its answer does not stand at character {row.start} of its passage",
                )
                self._refuse_unless(
                    titles.setdefault(passage.title, split) == split,
                    f"{where} is about a document of the {titles[passage.title]} split",
                )

    def sizes(self) -> dict[str, int]:
        """Questions of each split, and passages."""
        splits = {split: len(getattr(self, split)) for split in ("train", "valid", "test")}
        return {**splits, "passages": len(self.passages)}

    def digest(self) -> str:
        """SHA-256 over passages and questions in order, each as a JSON list of its fields."""
        total = hashlib.sha256()
        for passage in self.passages:
            total.update(json.dumps([passage.title, passage.text]).encode())
        for row in (*self.train, *self.valid, *self.test):
            fields = [row.text, row.passage, list(row.answers), row.start]
            total.update(json.dumps(fields).encode())
        return total.hexdigest()
