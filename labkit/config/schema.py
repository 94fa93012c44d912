"""Settings that every week has, and how a dataclass of settings is read."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from labkit.config.values import checked, literal_choices
from labkit.text import closest as closest

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

    Raises UsageError for a value that its field cannot take (see `values.checked`), and what the
    week's `__post_init__` raises.
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
