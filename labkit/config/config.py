"""From command-line words to a typed config: Hydra composes, and nothing unknown gets through.

Hydra alone swallows `+stepz=3` even with a schema, rejects `size=tiny` when size is not in the
defaults list, and knows no `Literal`. All three are settled here, once, for every week.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from labkit import paths
from labkit.config import sweep
from labkit.config.values import checked, literal_choices, typed
from labkit.errors import UsageError
from labkit.text import closest as closest
from labkit.text import short

GROUPS = ("size", "experiment", "debug")
"""Config groups that labkit owns. They are applied in this order, whatever the order typed."""

DEBUG = {"default": {"max_steps": 10, "device": "cpu", "precision": "fp32", "detect_anomaly": True}}


@dataclass
class LabConfig:
    """Settings that every week has; a week's Config extends them."""

    seed: int = 0
    """Seed of every random number generator of the run."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute type of run.autocast(); auto takes bf16 where the hardware has it."""
    fallback: str | None = None
    """Dataset to go on with, and to say so, when `data` can be neither found nor downloaded."""
    logger: list[str] = field(default_factory=list)
    """Extra writers beside console and metrics.jsonl: tensorboard, wandb, or [tensorboard,wandb].
    """
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; 0 saves after every step."""
    max_steps: int | None = None
    """Stop after this many steps; such a run is for debugging and enters no record."""
    detect_anomaly: bool = False
    """Let autograd name the operation that made a NaN (slow)."""
    resume: str | None = None
    """`latest` or a run folder: go on with that run, in place, with its own config."""


RESUMABLE_CHANGES = {"device", "logger", "checkpoint_seconds", "resume"}
"""What a resumed run may change: nothing of this enters the numbers on the same kind of device."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line, checked: the config, and the overrides for Hydra."""

    config: LabConfig
    choices: dict[str, str]
    overrides: list[str]

    @property
    def size(self) -> str:
        return self.choices.get("size", "full")


def options(week: str, group: str) -> list[str]:
    """Names available in a group that labkit owns, e.g. the sizes of a week."""
    if group == "debug":
        return sorted(DEBUG)
    order = {"smoke": 0, "tiny": 1}
    names = (path.stem for path in (paths.CONFIGS / week / group).glob("*.yaml"))
    return sorted(names, key=lambda name: (order.get(name, 2), name))


def schema(config: type[LabConfig]) -> type:
    """The dataclass handed to OmegaConf: Literal, which it does not know, becomes plain str."""
    hints = typing.get_type_hints(config)
    fields = []
    for item in dataclasses.fields(config):
        annotation = hints[item.name]
        if literal_choices(annotation):
            optional = type(None) in get_args(annotation)
            annotation = str | None if optional else str
        default = (
            field(default_factory=item.default_factory)
            if item.default_factory is not dataclasses.MISSING
            else field(default=item.default)
        )
        fields.append((item.name, annotation, default))
    return dataclasses.make_dataclass(f"{config.__name__}Schema", fields)


_registered: dict[str, type[LabConfig]] = {}


def register(week: str, config: type[LabConfig]) -> None:
    """Put the week's schema, and the debug group, where Hydra finds them; once is enough."""
    from hydra.core.config_store import ConfigStore

    if _registered.get(week) is config:
        return
    _registered[week] = config
    store = ConfigStore.instance()
    store.store(name=f"{week}_schema", node=schema(config))
    for name, values in DEBUG.items():
        store.store(group="debug", name=name, package="_global_", node=values)


def instantiate(config: type[LabConfig], values: dict[str, Any]) -> LabConfig:
    """The week's own Config from composed values, or from those that a run folder holds.

    Raises UsageError for a value that its field cannot take (see `labkit.values.checked`), and what
    the week's `__post_init__` raises.
    """
    hints = typing.get_type_hints(config)
    return config(**{
        item.name: checked(item.name, values[item.name], hints[item.name], default_of(item))
        for item in dataclasses.fields(config)
        if item.name in values
    })  # fmt: skip


def default_of(item: dataclasses.Field[Any]) -> Any:
    """The full-size value of a field."""
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return item.default


def normalise(week: str, config: type[LabConfig], words: Sequence[str]) -> list[str]:
    """Check every key and bring all accepted spellings to the one that Hydra understands.

    `size=tiny` and `+size=tiny` mean the same, and so do `lr=1` and `+lr=1`. Raises UsageError for
    a key that the schema does not have, with or without `+`, naming the nearest real one.
    """
    keys = [item.name for item in dataclasses.fields(config)]
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
            raise UsageError(
                f"unknown setting '{key}'{closest(key, [*keys, *GROUPS])}"
                f"\nAll settings: python -m {week}.train --help"
            )
        elif key == "logger" and "[" not in value:
            plain.append(f"logger=[{value}]")
        else:
            plain.append(word.lstrip("+"))
    return [*(grouped[group] for group in GROUPS if group in grouped), *plain]


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
    return Request(instantiate(config, typing.cast(dict[str, Any], values)), choices, overrides)


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


def field_docs(config: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases; Python itself does not keep
    them.
    """
    docs: dict[str, str] = {}
    for cls in reversed(config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(after.value.value).split())
    return docs


def help_text(week: str, config: type[LabConfig]) -> str:
    """What `--help` prints: sizes, experiments and every setting with type, default and meaning."""
    hints, docs = typing.get_type_hints(config), field_docs(config)
    own = [
        f
        for f in dataclasses.fields(config)
        if f.name not in {b.name for b in dataclasses.fields(LabConfig)}
    ]
    shared = [f for f in dataclasses.fields(config) if f not in own]
    lines = [
        f"{week}: {' '.join((config.__doc__ or '').split())}",
        "",
        f"usage: python -m {week}.train [+size=NAME] [+experiment=NAME] [key=value ...]",
        f"       python -m {week}.train +size=tiny             a run on a laptop",
        f"       python -m {week}.train -m +size=tiny seed=0,1,2   a sweep: one run for each value",
        f"       python -m {week}.train resume=latest          go on with a stopped run",
        "",
        f"sizes:       {', '.join(options(week, 'size'))} (none given: full size)",
        f"experiments: {', '.join(options(week, 'experiment')) or 'none'}",
        "other:       debug=default (10 steps, NaN tracing), --cfg job (show the config)",
    ]
    for title, fields in (("settings of this week", own), ("settings of every week", shared)):
        lines += ["", f"{title} (full-size value shown; sizes and experiments change some):"]
        for item in fields:
            head = f"  {item.name}={typed(default_of(item))}"
            kind = _type_name(hints[item.name])
            lines.append(f"{head:<30} {kind}")
            lines += textwrap.wrap(
                docs.get(item.name, ""), 96, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    choices = literal_choices(annotation)
    if choices:
        return " | ".join(map(str, choices))
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation)
    )


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
