"""Flags and settings on the command line of a week."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.errors import UsageError

if TYPE_CHECKING:
    pass

SHOW_FLAGS = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--resolve", "--hydra-help")
"""Flags passed on to Hydra as they are; they show something and run nothing."""


def split_flags(argv: Sequence[str], week: str) -> tuple[list[str], list[str]]:
    """Separate flags, with the values that some take, from key=value words. Raises UsageError for
    an unknown flag.
    """
    flags, words = [], []
    takes_value = False
    for word in argv:
        if takes_value and not word.startswith("-") and "=" not in word:
            flags.append(word)
            takes_value = False
        elif word.startswith("-"):
            name = word.split("=")[0]
            if name not in ("-h", "--help", "-m", "--multirun", *SHOW_FLAGS):
                bare = word.lstrip("-")
                raise UsageError(
                    f"unknown option {word}: settings are written without dashes, e.g. "
                    f"{bare if '=' in bare else bare + '=...'}"
                    f"\nAll settings: python -m {week}.train --help"
                )
            flags.append(word)
            takes_value = name in ("--cfg", "-c", "--package", "-p", "--info", "-i")
        else:
            words.append(word)
    names = {flag.split("=")[0] for flag in flags}
    alone = names & {"--resolve", "--package", "-p"}
    if alone and not names & {"--cfg", "-c"}:
        raise UsageError(
            f"{min(alone)} goes with --cfg: python -m {week}.train --cfg job {min(alone)}"
        )
    return flags, words
