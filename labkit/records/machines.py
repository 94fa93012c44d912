"""Classes of machine: what in a record shows how fast a processor is."""

from __future__ import annotations

import re
from typing import Any

Record = dict[str, Any]


def machine(record: Record) -> str:
    """The class of machine in words: the accelerator, or the processor with its instruction set
    ("AMD EPYC" alone can be one with AVX2 or with AVX512-bf16), cores, and threads where fewer.
    """
    about = record.get("machine") or {}
    name = re.sub(r"\((R|TM)\)|\bCPU\b|@.*$|\d+-Core Processor", "", about.get("name") or "")
    words = [" ".join(name.split())]
    if about.get("device") == "cpu":
        words.append(instructions(record) or "")
        cores = about.get("physical_cores") or about.get("cores")
        words.append(f"{cores} cores" if cores else "")
        threads = about.get("threads")
        if threads and cores and threads != cores:
            words.append(f"{threads} thread{'s' * (threads > 1)}")
    if (record.get("processes") or 1) > 1:
        words.append(f"{record['processes']} processes")
    return ", ".join(filter(None, words))


def instructions(record: Record) -> str | None:
    """The processor's instruction set, if the record names it.

    Older records do not. Where precision=auto chose bf16, the processor has bf16; else it is
    unknown.
    """
    about = record.get("machine") or {}
    if "instructions" in about or about.get("device") != "cpu":
        held = about.get("held_back")
        return about.get("instructions") and about["instructions"] + (
            f" ({held} held back)" if held else ""
        )
    chosen = record["config"].get("precision") == "auto" and record.get("precision") == "bf16"
    return "bf16" if chosen else None
