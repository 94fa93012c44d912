"""From command-line words to a typed config: Hydra composes, and unknown keys are refused.

Hydra alone accepts `+stepz=3` even with a schema, rejects `size=tiny` when size is not in the
defaults list, and does not know `Literal`. All three are handled here for every week.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.config import sweep
from labkit.config.fields import settings
from labkit.config.schema import DEBUG, GROUPS, LabConfig, Request, instantiate, register
from labkit.errors import UsageError
from labkit.text import closest, short


def options(week: str, group: str) -> list[str]:
    """Names available in a group that labkit owns, e.g. the sizes of a week."""
    if group == "debug":
        return sorted(DEBUG)
    order = {"smoke": 0, "tiny": 1}
    names = (path.stem for path in (paths.CONFIGS / week / group).glob("*.yaml"))
    return sorted(names, key=lambda name: (order.get(name, 2), name))


def normalise(week: str, config: type[LabConfig], words: Sequence[str]) -> list[str]:
    """Check every key and bring all accepted spellings to the one that Hydra understands.

    `size=tiny` and `+size=tiny` mean the same, and so do `lr=1` and `+lr=1`. Raises UsageError for
    a key that the schema does not have, with or without `+`, naming the nearest real one.
    """
    keys = [setting.name for setting in settings(config)]
    grouped: dict[str, str] = {}
    plain: list[str] = []
    for word in words:
        override = sweep.parse(word)
        key, value = override.key_or_group, word.partition("=")[2]
        if key.startswith(("hydra.", "hydra/")):
            sweep.check_hydra_word(word)
            plain.append(word)
        elif word.startswith("~"):
            raise UsageError(f"'{word}': a setting cannot be deleted; give it a value: {key}=...")
        elif key in GROUPS:
            names = options(week, key)
            for name in value.split(","):
                if name not in names:
                    known = ", ".join(names) or "none"
                    raise UsageError(
                        f"unknown {key} '{name}'{closest(name, names)} Known here: {known}."
                        f"\nType: python -m {week}.train +{key}={(names or ['...'])[0]}"
                    )
            grouped[key] = f"+{key}={value}"
        elif key not in keys:
            raise UsageError(f"{_unknown(key, keys)}\nAll settings: python -m {week}.train --help")
        elif key == "logger" and "[" not in value:
            plain.append(f"logger=[{value}]")
        else:
            plain.append(word.lstrip("+"))
    return [*(grouped[group] for group in GROUPS if group in grouped), *plain]


def _unknown(key: str, keys: Sequence[str]) -> str:
    """The message for an unknown key: it may be a group, or the old name of a setting."""
    inside = [name for name in keys if name.startswith(f"{key}.")]
    if inside:
        return f"'{key}' is a group of settings: {', '.join(inside)}"
    if (now := key.replace("_", ".", 1)) in keys:
        return f"unknown setting '{key}'; it is called {now} now"
    return f"unknown setting '{key}'{closest(key, [*keys, *GROUPS])}"


def compose(week: str, config: type[LabConfig], words: Sequence[str]) -> Request:
    """Compose and type-check one run's config, exactly as Hydra will for the run itself.

    Raises UsageError, in one line per fault, for anything that Hydra or the week refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = normalise(week, config, words)
    register(week, config)
    folder = paths.CONFIGS / week
    if not (folder / "config.yaml").is_file():
        raise UsageError(
            f"no config for {week}: {folder / 'config.yaml'} is missing; lab runs from a clone"
        )
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folder), version_base="1.3"):
            composed = hydra_compose("config", overrides)
        values = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_plain(error, overrides)) from error
    except (ValueError, ArithmeticError, RecursionError) as error:  # of a number, or of ${...}
        said = " ".join(map(short, overrides))
        raise UsageError(f"a value cannot be read: {short(error)}\nThe settings: {said}") from error
    choices = {
        o.lstrip("+").split("=")[0]: o.split("=")[1]
        for o in overrides
        if o.lstrip("+").split("=")[0] in GROUPS
    }
    assert isinstance(values, dict)
    settings = instantiate(config, typing.cast(dict[str, Any], values))
    if settings.max_steps is not None and settings.max_steps < 1:
        raise UsageError(f"max_steps={settings.max_steps} must be at least 1; try max_steps=10")
    return Request(settings, choices, overrides)


def _plain(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's and OmegaConf's messages without their internals."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(cause).__name__
    key = next(
        (line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")),
        "",
    )
    if "Ambiguous" in str(error) or "sweep" in str(error).lower():
        return (
            "several values for one setting need -m in front (a sweep), or [a,b] for a list: "
            + " ".join(overrides)
        )
    return f"{key}: {text}" if key and key not in text else text


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and group choices with which a run was started, from its `.hydra/`.

    Raises UsageError when they cannot be read.
    """
    import yaml

    try:
        values = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
        text = (folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")
        choices = {}
        for word in yaml.safe_load(text) or []:
            key, _, value = word.lstrip("+").partition("=")
            if key in GROUPS:
                choices[key] = value
        return dict(values), choices
    except (OSError, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no readable run config (.hydra/config.yaml): {error}"
        ) from error
