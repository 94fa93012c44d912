"""Settings of the stages, apart from the code that needs torch: `--help` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.config.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

TRACKS = ("alignment", "world_model", "multimodal", "nerf")


@dataclass
class MixtureSettings:
    """What the model is tuned on, and examined."""

    chats: PositiveInt = 60_000
    """Chats of the mixture."""
    command: NonNegativeFloat = 1.0
    """Share of the instructions, relative to the others."""
    tool: NonNegativeFloat = 1.0
    """Share of the tools' traces."""
    safety: NonNegativeFloat = 1.0
    """Share of the requests, harmful and harmless ones."""
    thing: NonNegativeFloat = 0.5
    """Share of the definitions of the objects in requests."""
    tests: PositiveInt = 400
    """Chats of each kind in the exam."""


@dataclass
class TuneSettings:
    """Instruction tuning, as in week 8: the loss of the answers alone."""

    steps: PositiveInt = 6_000
    """Optimiser steps."""
    tokens: PositiveInt = 16_384
    """Tokens of a step, padding included."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW: embedding, norms and biases."""
    muon_lr: PositiveFloat = 5e-3
    """Peak learning rate of Muon: the matrices of the layers."""


@dataclass
class AlignSettings:
    """DPO, as in week 16."""

    steps: PositiveInt = 600
    """Optimiser steps."""
    pairs: PositiveInt = 64
    """Pairs of a step."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""
    smoothing: NonNegativeFloat = 0.0
    """Share of the preferences that are taken to be wrong."""
    anchor: NonNegativeFloat = 1.0
    """Weight of the tuning loss on a part of the mixture: without it the model forgets its
    tools."""
    chosen: NonNegativeFloat = 1.0
    """Weight of the good answers' own loss: without it DPO may make both answers unlikely, and the
    model says a third thing."""
    lr: PositiveFloat = 1e-4
    """Peak learning rate of AdamW."""
    muon_lr: PositiveFloat = 5e-4
    """Peak learning rate of Muon."""


@dataclass
class ServeSettings:
    """The server, and the load that measures it."""

    port: NonNegativeInt = 0
    """Port on 127.0.0.1; 0 takes a free one."""
    requests: NonNegativeInt = 200
    """Requests of the load; 0 measures no speed."""
    rate: PositiveFloat = 8.0
    """Requests a second, at random times."""
    scheme: Literal["int8_tensor", "int8", "int8_zero", "llm_int8", "int4"] = "int8"
    """How the weights are rounded: a scheme of week 20 that needs no calibration."""


@dataclass(frozen=True)
class AlignmentSettings:
    """Everything that the track `alignment` uses."""

    data: str
    corpus: str
    base: str
    context: int
    mixture: MixtureSettings
    tune: TuneSettings
    align: AlignSettings
    serve: ServeSettings
