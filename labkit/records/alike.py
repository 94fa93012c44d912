"""Whether a record was made with given settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def spelt_as_then(name: str) -> str:
    """A setting's name as it is compared: `ppo.lr` was `ppo_lr` in older records."""
    return name.replace(".", "_")


def same_settings(
    record: Mapping[str, Any], config: Mapping[str, Any], among: Collection[str]
) -> bool:
    """Whether the record has the values of `config` (dotted names) for the settings `among`.

    A setting that the record does not have is no difference: it is newer.
    """
    then = {spelt_as_then(name): value for name, value in record["config"].items()}
    return all(then.get(spelt_as_then(n), config[n]) == config[n] for n in among if n in config)
