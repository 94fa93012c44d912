"""Instructions with answers: Alpaca, and commands whose answers can be checked exactly."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from labkit.data.files import instruction_rows, unzip
from labkit.data.kinds import DataError, Instruction, InstructionData
from labkit.data.sets.images import source_of

ALPACA_URL = "https://huggingface.co/datasets/tatsu-lab/alpaca"
ALPACA_ROWS = 52_002
ALPACA_9K_SHA256 = "6a08d5376bb34a46a8abc0250393023ec46a8affa4f4d95c5f72be4086a46fd8"
COMMANDS = {"train": 8_000, "valid": 400, "test": 400}
"""Rows of `commands`."""
WORDS = (
    "apple arrow beach bell bird boat bone book bread bridge brush cake camp candle car castle "
    "cat chair chalk cloud coat coin corn crow cup dance deer desk dog door dream drum dust "
    "eagle earth egg engine farm feather field fire fish flag flower forest fox friend frog "
    "game garden gate glass goat gold grass hair hall hammer hand hat hill honey horse house "
    "ice island jar key king kite lake lamp leaf lemon letter lion map milk mill moon mouse "
    "music nail needle nest night oak ocean onion owl paint paper path pear pen piano pilot "
    "plate pond queen rain ring river road rock roof root rope rose sail salt sand school seed "
    "sheep ship shoe silver sky snow song spoon stone storm street sugar sun table tea tent "
    "tiger tower train tree turtle valley village violin wagon wall water wheel wind window "
    "winter wolf wood wool yard"
).split()
"""What `commands` works on: short everyday nouns."""


def read_alpaca(folder: Path) -> InstructionData | None:
    """Alpaca (Taori et al. 2023), CC BY-NC 4.0: alpaca/alpaca_52k.json.gz, or the published random
    part of 9,229 rows in alpaca/random_9k.json.gz, which is then named alpaca_9k.

    Rows with an empty output teach only to stop at once, and are left out.
    """
    full, part = (folder / "alpaca" / f"{name}.json.gz" for name in ("alpaca_52k", "random_9k"))
    if full.is_file():
        name = "alpaca"
        rows = instruction_rows(unzip(full), full)
        if len(rows) != ALPACA_ROWS:
            raise DataError(
                f"{full} has {len(rows):,} rows, Alpaca has {ALPACA_ROWS:,}: remove the file"
            )
    elif part.is_file():
        name = "alpaca_9k"
        if hashlib.sha256(part.read_bytes()).hexdigest() != ALPACA_9K_SHA256:
            raise DataError(
                f"{part} is not the published file (SHA-256 differs): replace or remove it"
            )
        rows = instruction_rows(unzip(part), part)
    else:
        return None
    return InstructionData(name, source_of(folder), **split_rows(rows))


def split_rows(rows: list[Instruction]) -> dict[str, tuple[Instruction, ...]]:
    """One twentieth for testing, one for validation, by a hash of the instruction's text: rows that
    share it, with other inputs, stay together. Rows with an empty output are left out.
    """
    splits: dict[str, list[Instruction]] = {"train": [], "valid": [], "test": []}
    for row in rows:
        if row.output:
            part = zlib.crc32(row.instruction.encode()) % 20
            splits[{0: "test", 1: "valid"}.get(part, "train")].append(row)
    return {split: tuple(found) for split, found in splits.items()}


def fetch_alpaca(folder: Path) -> None:
    """Through the `datasets` library, written in the layout that `read_alpaca` reads."""
    import datasets

    table = datasets.load_dataset("tatsu-lab/alpaca", split="train")
    rows = [{key: row[key] for key in ("instruction", "input", "output")} for row in table]
    (folder / "alpaca_52k.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode(), mtime=0))


Command = tuple[str, Callable[[list[str]], str]]
COMMAND_FORMS: tuple[Command, ...] = (
    ("Repeat the words.", " ".join),
    ("Write the words in reverse order.", lambda words: " ".join(reversed(words))),
    ("Write the first word.", lambda words: words[0]),
    ("Write the last word.", lambda words: words[-1]),
    ("Write the words in capital letters.", lambda words: " ".join(words).upper()),
    ("Sort the words from A to Z.", lambda words: " ".join(sorted(words))),
    ("Count the words.", lambda words: str(len(words))),
    ("Join the words with commas.", ", ".join),
)
"""The instructions of `commands`, and the answer as a function of the row's input, the words."""


def commands() -> InstructionData:
    """Eight instructions on two to five words. Each list of words occurs once, so no test
    input occurs in training, under any instruction.
    """
    rng = np.random.default_rng(0)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, tuple[Instruction, ...]] = {}
    for split, count in COMMANDS.items():
        rows: list[Instruction] = []
        while len(rows) < count:
            chosen = rng.choice(len(WORDS), size=rng.integers(2, 6), replace=False)
            words = [WORDS[index] for index in chosen]
            if tuple(words) not in seen:
                seen.add(tuple(words))
                text, answer = COMMAND_FORMS[len(rows) % len(COMMAND_FORMS)]
                rows.append(Instruction(text, " ".join(words), answer(words)))
        splits[split] = tuple(rows)
    return InstructionData("commands", "embedded", **splits)
