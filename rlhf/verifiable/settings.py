"""Settings of GRPO and of the supervised start; `--help` needs them without waiting for torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit import UsageError
from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

Loss = Literal["grpo", "dr_grpo", "dapo"]


@dataclass
class GRPOSettings:
    """Group relative policy optimisation."""

    loss: Loss = "grpo"
    """How token losses are averaged: each answer's mean first (grpo), the sum over a constant
    (dr_grpo, which also leaves out the standard deviation), or over all tokens (dapo)."""
    prompts: PositiveInt = 128
    """Questions of a step."""
    group: Annotated[int, Bounds(least=2)] = 8
    """Answers to each question: two or more, since they are compared with each other."""
    iterations: PositiveInt = 2
    """Updates on the same answers."""
    lr: PositiveFloat = 1e-3
    """Learning rate of AdamW at first; it falls to 0 in a straight line."""
    clip_low: Annotated[float, Bounds(above=0, most=1)] = 0.2
    """The ratio to the sampler counts down to 1 - clip_low."""
    clip_high: PositiveFloat = 0.2
    """The ratio counts up to 1 + clip_high; DAPO's clip-higher takes 0.28."""
    dynamic: bool = False
    """DAPO's dynamic sampling: leave out groups whose rewards are all equal."""
    redraws: PositiveInt = 1
    """With dynamic: draw at most so many times, until `prompts` groups are found."""
    beta: NonNegativeFloat = 0.0
    """Weight of the KL penalty to the model after its supervised start."""
    kl_ratio: bool = False
    """Multiply the penalty by the ratio, as trl does by default (DeepSeek-V3.2): its gradient then
    is that of the KL divergence itself."""
    max_norm: PositiveFloat = 1.0
    """Largest norm of the gradient."""

    def check(self) -> None:
        """Raises UsageError for settings that contradict each other."""
        if self.redraws > 1 and not self.dynamic:
            raise UsageError("grpo.redraws is for dynamic sampling; type grpo.dynamic=true as well")


@dataclass
class StartSettings:
    """The supervised start: cross-entropy on right answers, until the model is partly right."""

    accuracy: Annotated[float, Bounds(above=0, below=1)] = 0.25
    """Stop at this share of right greedy answers on the validation sums."""
    steps: PositiveInt = 2000
    """At most so many steps."""
    batch_size: PositiveInt = 256
    """Sums a step."""
    lr: PositiveFloat = 1e-2
    """Learning rate of AdamW: embedding and head."""
    muon_lr: PositiveFloat = 2e-2
    """Learning rate of Muon: the matrices of the layers."""
    check_every: PositiveInt = 5
    """Steps between two looks at the validation accuracy."""
    share: Fraction = 1.0
    """Share of the training sums whose answers are shown; GRPO has the questions of all."""
