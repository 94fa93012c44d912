"""Preferences of people or of models, published: HH-RLHF, and two small sets.

    hh_harmless   2,312 pairs of Anthropic's HH-RLHF (Bai et al. 2022), harmless-base, test; MIT.
                  Its texts are offensive on purpose.
    dpo_demo      300 pairs from LLaMA-Factory, Apache-2.0
    polite        1,100 answers, polite against impolite, from LLMs from Scratch; Apache-2.0

A prompt is in one split only, which a hash of its text decides.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.data.fetch import download
from labkit.data.files import FIX, decode, unzip
from labkit.data.kinds import DataError, Preference, PreferenceData
from labkit.data.sets.images import source_of


@dataclass(frozen=True)
class Published:
    """The file of a published set."""

    name: str
    path: str
    """Below preference/ in a data folder."""
    url: str
    sha256: str
    """Of the content, unzipped."""
    download_sha256: str
    """Of what `url` gives."""


RAW = "https://raw.githubusercontent.com"
HH = Published(
    "hh_harmless",
    "hh-rlhf/harmless-base/test.jsonl.gz",
    f"{RAW}/anthropics/hh-rlhf/354e5c3cb896/harmless-base/test.jsonl.gz",
    "14d765196c9f18d84f9bb3a78bac608c8f2915110ebcbd74ec95db7b7198b008",
    "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03",
)
DEMO = Published(
    "dpo_demo",
    "llamafactory_dpo_demo/dpo_en_demo.json.gz",
    f"{RAW}/hiyouga/LLaMA-Factory/ff6d4d12eeb0/data/dpo_en_demo.json",
    "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
    "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
)
POLITE = Published(
    "polite",
    "rasbt/instruction-data-with-preference.json",
    f"{RAW}/rasbt/LLMs-from-scratch/28c65cdfbc33/ch07/04_preference-tuning-with-dpo/"
    "instruction-data-with-preference.json",
    "305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
    "305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
)
ASSISTANT = "\n\nAssistant:"
"""What the last turn of a dialogue of HH-RLHF begins with."""


def content(folder: Path, file: Published) -> bytes | None:
    """The content of a set's file, None when it is not there. Raises DataError if it is another."""
    path = folder / "preference" / file.path
    if not path.is_file():
        return None
    raw = unzip(path) if path.suffix == ".gz" else path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != file.sha256:
        raise DataError(f"{path} is not the published file (SHA-256 differs): {FIX}")
    return raw


def fetch(file: Published) -> Callable[[Path], None]:
    """What downloads a set into the folder that is the first part of its path."""

    def into(folder: Path) -> None:
        path = folder / file.path.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        download(file.url, path, file.download_sha256)
        if path.suffix == ".gz" and not file.url.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))

    return into


def split(rows: list[Preference]) -> dict[str, tuple[Preference, ...]]:
    """One tenth for testing, one for validation, by a hash of the prompt. Rows with an empty text
    or with two equal answers say nothing about preference and are left out.
    """
    splits: dict[str, list[Preference]] = {"train": [], "valid": [], "test": []}
    for row in rows:
        if row.prompt and row.chosen and row.rejected and row.chosen != row.rejected:
            part = zlib.crc32(row.prompt.encode()) % 10
            splits[{0: "test", 1: "valid"}.get(part, "train")].append(row)
    return {name: tuple(found) for name, found in splits.items()}


def data_of(file: Published, folder: Path, rows: list[Preference]) -> PreferenceData:
    """The set that these rows of a published file make."""
    return PreferenceData(file.name, source_of(folder), **split(rows))


def dialogues(text: str, path: Path) -> list[Preference]:
    """Rows of HH-RLHF's format, a JSON object of `chosen` and `rejected` a line.

    The prompt is the whole dialogue up to the last `Assistant:`; rows whose dialogues part earlier
    are left out. Raises DataError for a line of another format.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            pair = json.loads(line)
            chosen, rejected = str(pair["chosen"]), str(pair["rejected"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: expected a JSON object with chosen and rejected, each a "
                "whole dialogue, as in HH-RLHF"
            ) from error
        prompt, _, good = chosen.rpartition(ASSISTANT)
        other, _, bad = rejected.rpartition(ASSISTANT)
        if prompt == other:
            rows.append(Preference(prompt + ASSISTANT, good.strip(), bad.strip()))
    return rows


def read_dialogues(path: Path) -> list[Preference]:
    """The rows of any file in HH-RLHF's format, plain or .gz. Raises DataError as `dialogues`."""
    raw = unzip(path) if path.suffix == ".gz" else path.read_bytes()
    return dialogues(decode(raw, path), path)


def read_hh(folder: Path) -> PreferenceData | None:
    """HH-RLHF, harmless-base; in five of its rows the dialogues part before the last answer."""
    raw = content(folder, HH)
    if raw is None:
        return None
    path = folder / "preference" / HH.path
    return data_of(HH, folder, dialogues(decode(raw, path), path))


def read_demo(folder: Path) -> PreferenceData | None:
    """LLaMA-Factory's demonstration of DPO, English part; a dialogue is written as HH-RLHF's."""
    raw = content(folder, DEMO)
    if raw is None:
        return None
    words = {"human": "\n\nHuman: ", "gpt": f"{ASSISTANT} ", "system": ""}

    def row(entry: dict[str, Any]) -> Preference:
        turns = [words[turn["from"]] + turn["value"].strip() for turn in entry["conversations"]]
        prompt = "".join(turns) + ASSISTANT
        answers = (entry[side]["value"].strip() for side in ("chosen", "rejected"))
        return Preference(prompt, *answers)

    rows = [row(entry) for entry in json.loads(decode(raw, folder / "preference" / DEMO.path))]
    return data_of(DEMO, folder, rows)


def read_polite(folder: Path) -> PreferenceData | None:
    """Instructions whose answers were rewritten by Llama 3.1, politely and impolitely."""
    raw = content(folder, POLITE)
    if raw is None:
        return None
    rows = []
    for entry in json.loads(decode(raw, folder / "preference" / POLITE.path)):
        texts = [entry[key].strip() for key in ("instruction", "input", "chosen", "rejected")]
        question = "\n".join(filter(None, texts[:2]))
        prompt = f"\n\nHuman: {question}{ASSISTANT}"
        rows.append(Preference(prompt, texts[2], texts[3]))
    return data_of(POLITE, folder, rows)
