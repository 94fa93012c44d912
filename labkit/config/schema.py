"""Settings that every week has, and how a dataclass of settings is read."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from labkit.config import bounds
from labkit.config.bounds import PositiveInt
from labkit.config.fields import default_of, flat, is_group, settings
from labkit.config.values import checked, literal_choices, typed
from labkit.errors import UsageError

C = TypeVar("C", bound="LabConfig")

GROUPS = ("size", "experiment", "debug")
"""Config groups that labkit owns. They are applied in this order, not in the order typed."""

DEBUG = {"default": {"max_steps": 10, "device": "cpu", "precision": "fp32", "detect_anomaly": True}}


@dataclass
class RemoteSettings:
    """A rented machine, device=ssh://... or device=sky://..."""

    env: list[str] = field(default_factory=list)
    """Environment variables of this machine that the run there gets, such as [WANDB_API_KEY]."""
    data: str | None = None
    """`send` sends the datasets that the settings name; a folder is where they are there already.
    By default they are downloaded there.
    """
    python: str | None = None
    """A Python there that has the lab's packages. By default an environment is made there, once."""
    folder: str = "hands-on-ai-lab"
    """Folder for everything that is kept there, in the home there or a whole path."""
    ssh_config: str | None = None
    """An ssh configuration file instead of ~/.ssh/config."""
    accept_new: bool = False
    """Accept the host key of a machine never seen before; a changed key is always refused."""
    detach: bool = False
    """Start the run there and return at once; `lab remote attach` follows it."""
    yes: bool = False
    """Spend money without asking first (sky)."""
    idle_minutes: PositiveInt = 10
    """Minutes without work after which a machine of sky is torn down by itself."""


@dataclass
class LabConfig:
    """Settings that every week has; a week's Config extends them."""

    seed: int = 0
    """Seed of every random number generator of the run."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), cpu, cuda, cuda:1 or mps; or a rented machine,
    ssh://user@host:port or sky://H100:1 (docs/renting.md).
    """
    processes: PositiveInt = 1
    """Processes that train one model together, one for each GPU, in weeks that can."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Compute type of run.autocast(); auto takes bf16 where the hardware has it."""
    fallback: str | None = None
    """Dataset used instead, with a warning, when `data` can be neither found nor downloaded."""
    logger: list[str] = field(default_factory=list)
    """Extra writers beside console and metrics.jsonl: tensorboard, wandb, or [tensorboard,wandb].
    """
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints; 0 saves after every step."""
    max_steps: int | None = None
    """Stop after this many steps; such a run is for debugging and is not recorded."""
    detect_anomaly: bool = False
    """Let autograd name the operation that made a NaN (slow)."""
    bug: str | None = None
    """Train on a copy of the week with this bug of its bugs.yaml; experiments broken_* set it."""
    resume: str | None = None
    """`latest` or a run folder: resume that run, in place, with its own config."""
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    """Settings of device=ssh:// and sky://."""

    def __post_init__(self) -> None:
        """Raises UsageError for a setting outside its bounds. A week's own checks come after."""
        values = flat(self)
        for setting in settings(type(self)):
            bounds.check(setting.name, values[setting.name], setting.bounds, setting.default)


REMOTE = frozenset(f"remote.{item.name}" for item in dataclasses.fields(RemoteSettings))
WHERE = {"processes", *REMOTE}
"""Settings of where a run computes that no record needs: it names machine and processes itself."""

RESUMABLE_CHANGES = {"device", "logger", "checkpoint_seconds", "resume"} | WHERE
"""What a resumed run may change: on the same kind of device the results do not depend on it."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line, checked: the config, and the overrides for Hydra."""

    config: LabConfig
    choices: dict[str, str]
    overrides: list[str]

    @property
    def size(self) -> str:
        return self.choices.get("size", "full")


def schema(config: type) -> type:
    """The dataclass handed to OmegaConf, which does not know Literal: str replaces it."""
    hints = typing.get_type_hints(config)
    items: list[Any] = []
    for item in dataclasses.fields(config):
        annotation = hints[item.name]
        if is_group(annotation):
            annotation = schema(annotation)
            items.append((item.name, annotation, field(default_factory=annotation)))
            continue
        if literal_choices(annotation):
            optional = type(None) in get_args(annotation)
            annotation = str | None if optional else str
        if item.default_factory is not dataclasses.MISSING:
            items.append((item.name, annotation, field(default_factory=item.default_factory)))
        else:
            items.append((item.name, annotation, field(default=item.default)))
    return dataclasses.make_dataclass(f"{config.__name__}Schema", items)


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


def instantiate(config: type[C], values: Mapping[str, Any]) -> C:
    """The week's own Config from composed values, or from those that a run folder holds.

    Raises UsageError for a value that its field cannot take (see `values.checked`), and what the
    week's `__post_init__` raises.
    """
    return typing.cast(C, _instantiate(config, values, ""))


def _instantiate(config: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(config)
    found = {}
    for item in dataclasses.fields(config):
        if item.name not in values:
            continue
        value, annotation, name = values[item.name], hints[item.name], f"{prefix}{item.name}"
        if not is_group(annotation):
            found[item.name] = checked(name, value, annotation, default_of(item))
        elif isinstance(value, Mapping):
            found[item.name] = _instantiate(annotation, value, f"{name}.")
        else:
            raise UsageError(f"{name} is a group of settings, such as {name}.{_first(annotation)}")
    return config(**found)


def _first(group: type) -> str:
    setting = settings(group)[0]
    return f"{setting.name}={typed(setting.default)}"
