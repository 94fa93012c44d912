"""AlphaFold's parts at work: contacts from alignments, and structures from frames.

    python -m cross_frontiers.folding.train +size=tiny                          contacts
    python -m cross_frontiers.folding.train +size=tiny +experiment=structure    real proteins

Contacts: a tiny Evoformer learns on many generated families and is tested on families of other
folds, beside direct coupling analysis on the same alignments. Structures: the Evoformer and a
structure module learn a few real proteins by heart, and are compared with them after superposition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cross_frontiers.folding.settings import EvoformerSettings, FamilySettings
from labkit import LabConfig, Run, lab
from labkit.config.bounds import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 23: AlphaFold in small."""

    method: Literal["contacts", "structure"] = "contacts"
    """Contacts of many families, or structures of a few proteins."""
    data: Literal["families"] = "families"
    """Families with planted couplings, made by the week itself (method=contacts)."""
    proteins: str = "proteins"
    """Set of structures (method=structure): proteins, or helices, which are made here."""
    chains: list[str] = field(default_factory=list)
    """Chains of that set, such as [1AKI,1K6P:B]; none means the first of every entry, as with a
    fallback.
    """
    families: FamilySettings = field(default_factory=FamilySettings)
    """The families."""
    net: EvoformerSettings = field(default_factory=EvoformerSettings)
    """The Evoformer."""
    layers: PositiveInt = 8
    """Layers of the structure module, which share their weights."""
    unclamped: Fraction = 0.1
    """Share of FAPE without its clamp."""
    steps: PositiveInt = 5000
    """Optimiser steps."""
    batch_size: PositiveInt = 32
    """Families in a step; of proteins it is always one."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW: embeddings, heads, gains and biases."""
    muon_lr: PositiveFloat = 1e-2
    """Peak learning rate of Muon, for the matrices of blocks and structure module."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of those matrices."""
    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    evaluations: PositiveInt = 10
    """Looks during training, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.net.check()
        self.families.check()


@lab("cross_frontiers.folding", Config)
def train(cfg: Config, run: Run) -> None:
    """The loop is the same for both: a loss, a step, now and then a look."""
    import torch

    from cross_frontiers.folding import generated, start
    from cross_frontiers.folding.report import report_contacts, report_structures
    from cross_frontiers.folding.tasks import Contacts, Structures, Task, split_sizes
    from labkit.data import check_batch_size
    from pytorch_mastery import one_cycle

    torch.manual_seed(cfg.seed)
    task: Task
    if cfg.method == "contacts":
        made = generated.make(cfg.families, cfg.seed)
        run.generated(cfg.data, split_sizes(made), made["test"].digest())
        check_batch_size(len(made["train"]), cfg.batch_size)
        task = Contacts(cfg.net, made, cfg.batch_size, cfg.seed, run.device)
    else:
        data = start.structures(run, cfg.proteins)
        chains = start.chains_of(data, cfg.chains if data.name == cfg.proteins else [])
        task = Structures(cfg.net, chains, cfg.layers, cfg.unclamped, run.device)
    model = task.model
    optimizers = start.optimizers_of(model, cfg.lr, cfg.muon_lr, cfg.weight_decay, run.precision)
    first = {"loss": 0.0}
    run.track(
        model=model, first=first,
        **{f"optimizer{i}": each for i, each in enumerate(optimizers)},
    )  # fmt: skip
    every = max(1, cfg.steps // cfg.evaluations)

    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=max(cfg.warmup, 2 / cfg.steps))
        start.set_rates(optimizers, rate)
        with run.autocast():
            loss = task.loss(step)
        model.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
        for optimizer in optimizers:
            optimizer.step()
        if step == 0:
            first["loss"] = loss.item()
        last = step == cfg.steps - 1
        if step % cfg.log_every == 0 or last:
            run.log({"train/loss": loss, "train/lr": rate * cfg.lr, "train/norm": norm}, step)
        if (step + 1) % every == 0 or last:
            run.log(task.look(), step)
    run.save()

    if isinstance(task, Contacts):
        run.result(report_contacts(run, task))
    elif isinstance(task, Structures):
        run.result(report_structures(run, task, first["loss"]))


if __name__ == "__main__":
    train()
