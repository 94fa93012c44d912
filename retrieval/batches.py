"""Batches for both models, pure functions of (seed, step).

Only passages of the training documents are used, also as negatives: the passages of the test
documents are first seen when they are searched.

Letters: B questions, G passages of a question in a batch.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from labkit.data import QuestionData, batch_indices
from retrieval.bm25 import BM25
from retrieval.metrics import normalise_answer
from retrieval.settings import EncoderSettings, ReaderSettings
from retrieval.tensors import (
    QUESTION,
    WORD,
    Sheets,
    Vocabulary,
    bucket_idf,
    code,
    sheets,
    span_of,
    spans_with,
    stems,
)

POOL = 12
"""Passages that BM25 finds for a training question, from which negatives are drawn."""
PLACES = 4
"""Places of an answer in a passage that count in its likelihood."""


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the answers stands in the text, in SQuAD's normal form, as whole words."""
    words = f" {normalise_answer(text)} "
    return any(f" {form} " in words for answer in answers if (form := normalise_answer(answer)))


class Batches:
    """The training questions and documents as tensors on one device."""

    def __init__(
        self,
        data: QuestionData,
        encoder: EncoderSettings,
        reader: ReaderSettings,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.encoder, self.reader, self.seed, self.device = encoder, reader, seed, device
        self.questions = data.train
        titles = {data.passages[row.passage].title for row in data.train}
        self.known = np.flatnonzero([p.title in titles for p in data.passages])
        """Ids of the passages of the training documents, int64."""
        texts = [data.passages[i].text for i in self.known]
        asked = [row.text for row in data.train]
        self.vocabulary = Vocabulary.learn([*texts, *asked], reader.words)
        place = {int(p): i for i, p in enumerate(self.known)}
        self.gold = np.array([place[row.passage] for row in data.train])
        known = stems(texts, encoder.buckets)
        self.idf = bucket_idf(known, encoder.buckets)
        self.q_stems = stems(asked, encoder.buckets, QUESTION).to(device)
        self.p_stems = known.to(device)
        self.q_sheets = sheets(self.vocabulary, asked, QUESTION).to(device)
        self.p_sheets = sheets(self.vocabulary, texts).to(device)
        self.spans = torch.tensor(
            [span_of(row, self.p_sheets.places[g])
             for row, g in zip(data.train, self.gold, strict=True)]
        ).to(device)  # fmt: skip
        bm25 = BM25(texts)
        self.found, _ = bm25.search(asked, max(POOL, encoder.candidates))
        self.hard = [
            [i for i in row if i >= 0 and i != g and not has_answer(texts[i], question.answers)]
            for row, g, question in zip(self.found.tolist(), self.gold, data.train, strict=True)
        ]
        self.codes = [np.array([code(w.lower()) for w in WORD.findall(row.answers[0])])
                      for row in data.train]  # fmt: skip

    def __len__(self) -> int:
        return len(self.questions)

    def _negatives(self, index: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` passages for each question, int64 (B, count): hard ones, and any where BM25 finds
        too few.
        """
        out = rng.integers(len(self.known), size=(len(index), count))
        out += out == self.gold[index, None]
        out %= len(self.known)
        for row, i in zip(out, index, strict=True):
            hard = self.hard[i]
            chosen = rng.permutation(len(hard))[:count]
            row[: len(chosen)] = [hard[j] for j in chosen]
        return out

    def _index(
        self, batch_size: int, step: int, which: int
    ) -> tuple[np.ndarray, np.random.Generator]:
        index = batch_indices(len(self), batch_size, step, self.seed + 7919 * which)
        return index, np.random.default_rng((self.seed, step, which))

    def contrast(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Questions (B, T), candidates (C, T), and the ids of both, for `contrastive_loss`."""
        index, rng = self._index(self.encoder.batch_size, step, 0)
        own = self.gold[index]
        hard = self._negatives(index, self.encoder.negatives, rng).flatten()
        ids = torch.from_numpy(np.concatenate([own, hard])).to(self.device)
        rows = torch.from_numpy(index).to(self.device)
        return cut(self.q_stems[rows]), cut(self.p_stems[ids]), ids[: len(own)], ids

    def candidates(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """method=distill: questions (B,), and what BM25 finds for them, (B, K)."""
        index, _ = self._index(self.encoder.batch_size, step, 0)
        found = self.found[index, : self.encoder.candidates]
        return index, np.where(found < 0, self.found[index, :1].clip(min=0), found)

    def places(self, index: np.ndarray, found: np.ndarray) -> Tensor:
        """Where each question's answer stands in each candidate, int64 (B K, PLACES, 2), -1 where
        it does not.
        """
        out = np.full((found.size, PLACES, 2), -1)
        for row, (i, p) in enumerate(
            zip(np.repeat(index, found.shape[1]), found.flat, strict=True)
        ):
            answer = self.codes[i]
            words = self.forms[p]
            first = spans_with(answer, words)[:PLACES]
            out[row, : len(first), 0] = first
            out[row, : len(first), 1] = first + len(answer) - 1
        return torch.from_numpy(out).to(self.device)

    @cached_property
    def forms(self) -> np.ndarray:
        """Codes of the passages' words, int64 (P, T)."""
        return self.p_sheets.forms.cpu().numpy()

    def reading(self, step: int) -> tuple[Sheets, Sheets, Tensor]:
        """Questions (B G), passages (B G), the one with the answer first, and spans (B, 2)."""
        index, rng = self._index(self.reader.batch_size, step, 1)
        others = self._negatives(index, self.reader.negatives, rng)
        group = np.concatenate([self.gold[index][:, None], others], axis=1)
        rows = torch.from_numpy(np.repeat(index, group.shape[1])).to(self.device)
        passages = torch.from_numpy(group.flatten()).to(self.device)
        spans = self.spans[torch.from_numpy(index).to(self.device)]
        return self.q_sheets.rows(rows), self.p_sheets.rows(passages), spans

    def pairs(self, index: np.ndarray, found: np.ndarray) -> tuple[Sheets, Sheets]:
        """Each question (B,) with each of its candidates (B, K), as B K rows."""
        rows = torch.from_numpy(np.repeat(index, found.shape[1])).to(self.device)
        passages = torch.from_numpy(found.flatten()).to(self.device)
        return self.q_sheets.rows(rows), self.p_sheets.rows(passages)


def cut(tokens: Tensor) -> Tensor:
    """Without the columns that are padding in every row."""
    return tokens[:, : int((tokens != 0).sum(dim=1).max())]
