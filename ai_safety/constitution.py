"""A written constitution: the principles by which a model judges its own answers.

Bai et al. 2022, section 3.1 and appendix C: each principle asks for a critique, and for a revision.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labkit import UsageError
from labkit.paths import typed

OWN = Path(__file__).with_name("constitution.yaml")


@dataclass(frozen=True)
class Principle:
    """The question of a critique, and the order for a revision."""

    question: str
    revision: str


def read(path: str, known: Collection[str]) -> list[Principle]:
    """The principles of a file; the week's own with path `own`.

    Args:
        known: words that the model has learned; a principle of others would be noise to it.
    Raises:
        UsageError when there is no such file, it has no principles, one is not two texts, or has a
        word that is not known.
    """
    file = OWN if path == "own" else typed(path)
    try:
        found: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"constitution={path} cannot be read: {error}") from error
    rows: Any = found.get("principles") if isinstance(found, dict) else None
    if not isinstance(rows, list) or not rows:
        raise UsageError(
            f"constitution={path} has no principles: expected `principles:` and a list below it, "
            f"as in {OWN.name}"
        )
    principles = []
    for number, row in enumerate(rows, 1):
        keys = ("question", "revision")
        texts: list[Any] = [row.get(key) for key in keys] if isinstance(row, dict) else []
        if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UsageError(
                f"principle {number} of constitution={path} is not two texts: expected "
                "`question: ...` and `revision: ...`"
            )
        strange = sorted({word for text in texts for word in text.split() if word not in known})
        if strange:
            raise UsageError(
                f"principle {number} of constitution={path} has words that the model does not "
                f"know: {', '.join(strange)}; its words are those of ai_safety/lessons.py"
            )
        principles.append(Principle(*texts))
    return principles
