"""Train a ladder of sizes under budgets of equal compute, and fit the scaling laws to it.

    python -m pretraining.scaling.train +size=tiny
    python -m pretraining.scaling.train +size=tiny count=non_embedding     Kaplan's way of counting

Under each budget C a model of size N is trained on D = C / 6N tokens: a large model sees little
text, a small one much. The best size lies between, and grows with the budget. Kaplan et al. 2020
(N ~ C^0.73) and Hoffmann et al. 2022 (N ~ C^0.5) disagree about how fast. The largest budget is
also predicted from the others: a law that cannot do that cannot be used beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Fraction, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 7: scaling laws, from many small trainings."""

    data: str = "wikitext2"
    """Text, read by characters: tinyshakespeare, wikitext2 or pydoc."""
    widths: list[PositiveInt] = field(
        default_factory=lambda: [32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320]
    )
    """Sizes of the ladder."""
    budgets: list[PositiveFloat] = field(
        default_factory=lambda: [1e12, 4e12, 1.6e13, 6.4e13, 2.5e14]
    )
    """Budgets of compute, in FLOPs: C = 6 N D. WikiText-2 has text for no larger one."""
    tokens_per_parameter: list[PositiveFloat] = field(default_factory=lambda: [1, 250])
    """Fewest and most tokens per parameter; sizes outside are left out of a budget."""
    count: Literal["all", "non_embedding"] = "all"
    """Which parameters are N: all (Hoffmann et al.), or those of the layers alone (Kaplan et al.).
    """
    repeats: PositiveInt = 2
    """Trainings of each size under each budget, each with a seed of its own: seed, seed + 1, ..."""
    layers: PositiveInt = 4
    """Layers of every size."""
    head_dim: PositiveInt = 32
    """Width of a head; narrower models have one head."""
    context: PositiveInt = 256
    """Characters that a model sees."""
    batch_size: PositiveInt = 32
    """Windows of `context` characters per step."""
    lr: PositiveFloat = 0.01
    """Peak learning rate of AdamW, for every size: with normed activations one rate fits all."""
    warmup: NonNegativeInt = 5
    """Steps over which the learning rate rises."""
    decay: Fraction = 0.5
    """Share of each training over which the learning rate falls to 0."""
    validation: PositiveInt = 262_144
    """Characters at the start of the validation split, on which every model is measured."""
    draws: PositiveInt = 1000
    """Bootstrap draws behind each interval."""
    log_every: PositiveInt = 20
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.widths)) < 4 or any(w % 2 for w in self.widths):
            raise UsageError(f"widths must be four or more different even numbers: {self.widths}")
        if any(w > self.head_dim and w % (2 * (w // self.head_dim)) for w in self.widths):
            raise UsageError(
                f"a width above head_dim={self.head_dim} must be a multiple of it: {self.widths}"
            )
        if len(set(self.budgets)) < 3:
            raise UsageError(f"budgets must be three or more different FLOPs: {self.budgets}")
        if len(self.tokens_per_parameter) != 2:
            raise UsageError("tokens_per_parameter must be fewest and most, like [5,250]")


@lab("pretraining.scaling", Config)
def train(cfg: Config, run: Run) -> None:
    """One training after the other; a step is a batch for the model whose turn it is."""
    import torch
    import torch.nn.functional as F

    from labkit.data import TextData
    from pretraining.data import encode, sample_batch
    from pretraining.evaluate import negative_log_likelihood
    from pretraining.scaling.ladder import Ladder, plan
    from pretraining.scaling.report import report
    from pretraining.schedule import warmup_stable_decay
    from pretraining.tokenizer import build_tokenizer

    data = run.data(cfg.data, TextData)
    tokenizer = build_tokenizer("char", data.name, data.train, 0)
    ids = encode(tokenizer, data.train).to(run.device)
    held_out = encode(tokenizer, data.valid[: cfg.validation]).to(run.device)
    trainings = plan(
        cfg.widths, cfg.budgets, cfg.tokens_per_parameter, cfg.layers, cfg.head_dim, cfg.context,
        cfg.batch_size, len(tokenizer), len(ids), cfg.count,
        range(cfg.seed, cfg.seed + cfg.repeats),
    )  # fmt: skip
    ladder = Ladder(trainings, cfg.lr, run.device)
    run.track(ladder=ladder)
    for step in run.steps(ladder.steps):
        local, last = ladder.at(step), ladder.training.steps - 1
        for group in ladder.optimizer.param_groups:
            group["lr"] = cfg.lr * warmup_stable_decay(
                local, last + 1, cfg.warmup, round(cfg.decay * (last + 1))
            )
        x, y = sample_batch(ids, cfg.context, cfg.batch_size, local, ladder.training.seed)
        with run.autocast():
            logits = ladder.model(x)
        loss = F.cross_entropy(logits.float().flatten(0, 1), y.flatten())
        ladder.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(ladder.model.parameters(), 1.0)
        ladder.optimizer.step()
        if local % cfg.log_every == 0 or local == last:
            run.log({"train/loss": loss, "train/parameters": ladder.training.parameters}, step)
        if local == last:
            with run.autocast():
                nats = negative_log_likelihood(ladder.model, held_out, tokenizer.eos_token_id)
            ladder.losses.append(nats / len(held_out))
            run.log({"valid/loss": ladder.losses[-1]}, step)
    run.save()
    run.result(report(run, trainings[: len(ladder.losses)], ladder.losses, cfg.draws))


if __name__ == "__main__":
    train()
