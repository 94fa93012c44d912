"""Small models that can be understood from inside, and the tools to do it.

python -m robustness.mechanistic.train +size=tiny                         induction heads
python -m robustness.mechanistic.train +size=tiny method=superposition    the phase diagram
python -m robustness.mechanistic.train +size=tiny method=sae              a dictionary of features
python -m robustness.mechanistic.train +size=tiny +experiment=language    the same of week 7's GPT

One loop for all: each method says what its loss is, and what surrounds a step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labkit import LabConfig, Run, lab
from labkit.config.bounds import PositiveInt
from robustness.mechanistic.settings import (
    InductionSettings,
    SAESettings,
    SuperpositionSettings,
)


@dataclass
class Config(LabConfig):
    """Week 22: mechanistic interpretability."""

    method: Literal["induction", "superposition", "sae"] = "induction"
    """What is trained: a model with induction heads, toy models of superposition, or a sparse
    autoencoder."""
    induction: InductionSettings = field(default_factory=InductionSettings)
    """Settings of method=induction."""
    superposition: SuperpositionSettings = field(default_factory=SuperpositionSettings)
    """Settings of method=superposition."""
    sae: SAESettings = field(default_factory=SAESettings)
    """Settings of method=sae."""
    evaluations: PositiveInt = 40
    """Looks at validation data during training, evenly spaced."""
    log_every: PositiveInt = 20
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.settings.check()

    @property
    def settings(self) -> InductionSettings | SuperpositionSettings | SAESettings:
        """Those of the method."""
        if self.method == "induction":
            return self.induction
        return self.superposition if self.method == "superposition" else self.sae


@lab("robustness.mechanistic", Config)
def train(cfg: Config, run: Run) -> None:
    """Loss, gradient, what surrounds a step; then a look inside."""
    import torch

    from pretraining import warmup_stable_decay
    from robustness.mechanistic import start
    from robustness.mechanistic.report import report

    job = start.begin(cfg.settings, run)
    steps, lr = cfg.settings.steps, cfg.settings.lr
    decay = 0.01 if cfg.method == "induction" else 0.0
    optimizer = torch.optim.AdamW(
        job.model.parameters(), lr, betas=(0.9, 0.98), weight_decay=decay, fused=True
    )
    run.track(model=job.model, optimizer=optimizer)
    every = max(1, steps // cfg.evaluations)

    for step in run.steps(steps):
        rate = lr * warmup_stable_decay(step, steps, warmup=steps // 20, decay=steps // 3)
        optimizer.param_groups[0]["lr"] = rate
        with run.autocast():
            loss = job.loss(step)
        optimizer.zero_grad()
        loss.backward()
        job.before_step()
        optimizer.step()
        job.after_step(step, optimizer)
        last = step == steps - 1
        if step % cfg.log_every == 0 or last:
            run.log({"train/loss": loss, "train/lr": rate}, step)
        if step % every == 0 or last:
            run.log(job.look(), step)
    run.save()

    run.plot("training", "train/loss", logy=cfg.method != "induction")
    run.result(report(job, run))


if __name__ == "__main__":
    train()
