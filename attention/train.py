"""Train a small Transformer to copy, to reverse and to sort, and plot its attention weights.

    python -m attention.train +size=tiny                 one model for the three tasks
    python -m attention.train +size=tiny task=reverse    one task alone

The answers are generated one token at a time with the KV cache. Two more measurements check the
parts: a model that is right on a row under teacher forcing must also generate it by itself, and
must generate the same without the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 5: attention, on sequences to copy, reverse and sort."""

    task: Literal["all", "copy", "reverse", "sort"] = "all"
    """Task to learn; `all` is one model for all three."""
    length: PositiveInt = 64
    """Symbols in a sequence."""
    symbols: PositiveInt = 64
    """Symbols in the alphabet."""
    d_model: PositiveInt = 256
    """Width of the model."""
    heads: PositiveInt = 8
    """Attention heads of a layer."""
    kv_heads: PositiveInt | None = None
    """Pairs of keys and values that the heads share; null: one for each head, 1: multi-query."""
    layers: PositiveInt = 4
    """Layers."""
    positions: Literal["sinusoidal", "rotary", "alibi", "none"] = "sinusoidal"
    """Position encoding."""
    backend: Literal["naive", "tiled", "sdpa"] = "sdpa"
    """Implementation of attention: the equation, the tiles of flash.py, or PyTorch's kernels."""
    steps: PositiveInt = 20_000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=3)] = 256
    """Rows per step, an equal share of each task."""
    lr: PositiveFloat = 1e-3
    """Peak of the one-cycle learning rate of AdamW."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay."""
    tests: PositiveInt = 1000
    """Test sequences of each task; never trained on."""
    evaluations: PositiveInt = 20
    """Evaluations on the validation sequences during training, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""
    cost_lengths: list[PositiveInt] = field(default_factory=lambda: [256, 512, 1024, 2048, 4096])
    """Lengths at which memory and time of naive and tiled attention are measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.heads or self.d_model % 2:
            raise UsageError(
                f"d_model must be even and a multiple of heads; got d_model={self.d_model} and "
                f"heads={self.heads}, try d_model={16 * self.heads}"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise UsageError(f"kv_heads must divide heads={self.heads}, got {self.kv_heads}")
        if self.positions == "rotary" and (self.d_model // self.heads) % 2:
            raise UsageError("positions=rotary needs an even number of dimensions in a head")
        if self.length * math.log(self.symbols) < math.log(1000):
            raise UsageError(
                f"{self.symbols} symbols in sequences of {self.length} are too few to hold any "
                "out; try length=8 symbols=8"
            )
        if not self.cost_lengths:
            raise UsageError("cost_lengths must be a list of lengths like [256,512]")


@lab("attention", Config)
def train(cfg: Config, run: Run) -> None:
    """A batch of rows, the loss on their answers, a step."""
    import torch
    import torch.nn.functional as F

    from attention.evaluate import relative_entropy, report, teacher_forced
    from attention.model import Transformer
    from attention.tasks import TASKS, Sequences, digest
    from pytorch_mastery import one_cycle

    data = Sequences(cfg.length, cfg.symbols)
    tasks = TASKS if cfg.task == "all" else (cfg.task,)
    tests = {task: data.held_out("test", task, cfg.tests) for task in tasks}
    run.generated("sequences", {"test": sum(map(len, tests.values()))}, digest(tests))
    valid = {task: torch.tensor(data.held_out("valid", task, 100)).to(run.device) for task in tasks}

    model = Transformer(
        data.vocabulary, cfg.d_model, cfg.heads, cfg.layers, cfg.kv_heads, cfg.positions,
        cfg.backend,
    ).to(run.device)  # fmt: skip
    optimizer = torch.optim.AdamW(
        model.parameters(), cfg.lr, betas=(0.9, 0.98), weight_decay=cfg.weight_decay, fused=True
    )
    run.track(model=model, optimizer=optimizer)
    first = torch.tensor(data.batch(tasks, cfg.batch_size, cfg.seed, 0)).to(run.device)
    untrained = {"entropy": 100 * float(relative_entropy(model, first[:, :-1]))}

    answers = data.prompt - 1  # the equals sign predicts the first one
    rise = max(cfg.warmup, 2 / cfg.steps)
    every = max(1, cfg.steps // cfg.evaluations)
    for step in run.steps(cfg.steps):
        rows = torch.tensor(data.batch(tasks, cfg.batch_size, cfg.seed, step)).to(run.device)
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, cfg.steps, cfg.lr, rise)
        with run.autocast():
            logits = model(rows[:, :-1])[:, answers:]  # (B, n, V)
        loss = F.cross_entropy(logits.float().flatten(0, 1), rows[:, data.prompt :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            run.log({"train/loss": loss, "train/lr": optimizer.param_groups[0]["lr"]}, step)
        if step % every == 0 or step == cfg.steps - 1:
            right = {t: teacher_forced(model, rows, data).mean() for t, rows in valid.items()}
            run.log({f"valid/{task}": 100 * share for task, share in right.items()}, step)
    run.save()
    rows_of = {task: torch.tensor(rows).to(run.device) for task, rows in tests.items()}
    run.result(report(cfg.cost_lengths, run, model, data, rows_of) | untrained)


if __name__ == "__main__":
    train()
