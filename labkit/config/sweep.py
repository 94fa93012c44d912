"""What `-m` sweeps over, and which of Hydra's own settings may be set.

A word that begins with `hydra.` changes Hydra's own settings, where a `_target_` can name any
Python function to call, and where labkit sets the run's folder. So only the useful words are
allowed; they are listed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from labkit.errors import UsageError
from labkit.text import closest, short

MOST = 1000
"""Values that one setting may take in a sweep."""

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
"""Choose another launcher or sweeper that is installed: hydra/launcher=joblib."""
HYDRA_SETTINGS = (
    "hydra.verbose",
    *(f"hydra.sweeper.{name}" for name in (
        "max_batch_size", "direction", "n_trials", "n_jobs", "max_failure_rate", "study_name",
        "sampler.seed",
    )),
    *(f"hydra.launcher.{name}" for name in (
        "n_jobs", "backend", "prefer", "timeout", "verbose", "batch_size", "timeout_min",
        "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "partition",
        "qos", "account", "constraint", "gres", "array_parallelism",
    )),
)  # fmt: skip
"""Plain values of the sweepers and launchers that exist: how many at once, where, for how long."""


def check_hydra_word(word: str) -> None:
    """Raises UsageError for a setting of Hydra that is not listed above, or a value of it that is
    more than a word or a number.
    """
    key, _, value = word.partition("=")
    bare = key.lstrip("+")
    known = (*HYDRA_GROUPS, *HYDRA_SETTINGS)
    if bare not in known or key.startswith("~"):
        hint = {
            "hydra.run.dir": "\nTo write runs elsewhere, set LAB_HOME to that folder.",
            "hydra.sweep.dir": "\nTo write runs elsewhere, set LAB_HOME to that folder.",
        }.get(bare, "")
        raise UsageError(
            f"'{short(bare)}' is a setting of Hydra that may not be changed here"
            f"{closest(bare, known)}{hint}\nAllowed: {', '.join(HYDRA_GROUPS)}, and of "
            f"their settings {', '.join(name.removeprefix('hydra.') for name in HYDRA_SETTINGS)}."
        )
    if not re.fullmatch(r"[\w.+-]+", value):
        raise UsageError(f"{bare}={short(value)} must be one plain word or number")


def expand(words: Sequence[str]) -> list[list[str]]:
    """The single runs whose configs must be checked before a sweep starts.

    Each swept key is varied in turn with the others at their first value, so that a bad value is
    found at once and not an hour into the sweep. Raises UsageError for a sweep without values
    (`range(0)`), over an interval (infinitely many values), or of more than a thousand.
    """
    values: list[list[str]] = []
    for word in words:
        override = parse(word)
        if override.is_sweep_override():
            prefix = "+" if word.startswith("+") else ""
            key = override.key_or_group
            values.append([f"{prefix}{key}={value}" for value in _swept(key, word, override)])
        else:
            values.append([word])
    first = [v[0] for v in values]
    runs = [first]
    for position, alternatives in enumerate(values):
        runs += [[*first[:position], v, *first[position + 1 :]] for v in alternatives[1:]]
    return runs


def _swept(key: str, word: str, override: Any) -> list[str]:
    from hydra.core.override_parser.types import RangeSweep

    sweep, name_them = override.value(), f"name the values to sweep over, as in {key}=1,2,3"
    listed = override.is_choice_sweep() and hasattr(sweep, "list")  # and not a pattern, glob(*)
    if not (listed or override.is_range_sweep()):
        raise UsageError(f"'{short(word)}': {name_them}")
    if isinstance(sweep, RangeSweep):
        start, stop, step = sweep.start or 0, sweep.stop, sweep.step
        count = math.inf if not step or stop is None else math.ceil((stop - start) / step)
        if count > MOST:
            raise UsageError(f"'{short(word)}' has more than {MOST} values; {name_them}")
    found = list(override.sweep_string_iterator())
    if not 0 < len(found) <= MOST:
        wrong = f"more than {MOST} values" if found else "no value"
        raise UsageError(f"'{short(word)}' has {wrong}; {name_them}")
    return found


@lru_cache(maxsize=1024)
def parse(word: str) -> Any:
    """One word of the command line as Hydra parses it; not to be altered.

    Raises UsageError when it has none.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        word.encode()
        return OverridesParser.create().parse_override(word)
    except UnicodeEncodeError as error:
        raise UsageError(f"{word!a} holds bytes that are not UTF-8 text") from error
    except (HydraException, ValueError) as error:  # ValueError: more digits than Python reads
        raise UsageError(
            f"cannot read '{short(word)}': settings are written key=value, e.g. seed=1"
        ) from error
