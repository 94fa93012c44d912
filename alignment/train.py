"""Tune a GPT-2 to follow instructions, by low-rank updates of its weights.

    python -m alignment.train +size=tiny                        LoRA by hand on week 7's model
    python -m alignment.train +size=tiny +experiment=compare    also full fine-tuning, to compare
    python -m alignment.train +size=tiny method=trl             the same by peft and trl

The loss covers the answer's tokens only. The test is on held-out instructions: how likely their
answers are, and how many commands, whose answers can be checked, are answered exactly right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Fraction, PositiveFloat, PositiveInt, Share

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Config(LabConfig):
    """Week 8: instruction tuning."""

    data: str = "alpaca"
    """alpaca, or commands (embedded)."""
    commands: Share = 0.2
    """Share of the training rows that are commands, whose answers can be checked; fewer, with a
    message, when there are not so many."""
    base: str = "gpt2"
    """Model to tune: lab://pretraining/tiny, a folder, or a name on the hub."""
    method: Literal["lora", "full", "compare", "trl"] = "lora"
    """LoRA by hand, full fine-tuning, both on the same batches, or LoRA by peft and trl."""
    rank: PositiveInt = 16
    """Rank of the update."""
    alpha: PositiveFloat = 32.0
    """The update is multiplied by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["c_attn", "c_proj", "c_fc"])
    """Last names of the layers that get an update; lm_head is the head (not for method=trl)."""
    dropout: Share = 0.0
    """Dropout of the base while it is tuned, and of the update's input."""
    context: PositiveInt = 512
    """Tokens in a row of the batch; longer examples are left out."""
    packing: bool = True
    """Pack several examples into a row; false: one per row, with padding."""
    steps: PositiveInt = 1200
    """Optimiser steps; method=compare divides them between its two models."""
    batch_size: PositiveInt = 128
    """Examples a step."""
    lr: PositiveFloat = 1e-3
    """Peak of LoRA's one-cycle learning rate."""
    lr_full: PositiveFloat = 1e-4
    """The same for full fine-tuning."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    tests: PositiveInt = 1000
    """Maximal number of held-out examples for the likelihood, and of held-out commands."""
    evaluations: PositiveInt = 10
    """Evaluations on 100 validation examples during training, evenly spaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise UsageError("targets must name a layer, e.g. targets=[c_attn]")
        if self.method == "trl" and "lm_head" in self.targets:
            raise UsageError(
                "trl reads the head's weight directly, without its update, so it cannot train one; "
                "type targets=[c_attn,c_proj,c_fc], or method=lora"
            )


@lab("alignment", Config)
def train(cfg: Config, run: Run) -> None:
    """A batch of examples, the loss of their answers, a step."""
    import torch

    from alignment.base import check_context, load_base
    from alignment.chat import Example, labels
    from alignment.evaluate import response_nll
    from alignment.lora import trainable
    from alignment.loss import response_loss
    from alignment.mixture import mix
    from alignment.model import make_model, make_optimizer, plain
    from alignment.packing import collate
    from alignment.report import report
    from labkit.data import InstructionData, batch_indices
    from pytorch_mastery import one_cycle

    rows = run.data(cfg.data, InstructionData)
    commands = rows if rows.name == "commands" else run.data("commands", InstructionData)
    texts = (f"{row.instruction}\n{row.input}\n{row.output}" for row in rows.train)
    base, tokenizer = load_base(cfg.base, run, texts, cfg.dropout)
    context = check_context(base, cfg.context)
    data = mix(rows, commands, cfg.commands, tokenizer, context, cfg.batch_size)

    names = ("lora", "full") if cfg.method == "compare" else (cfg.method,)
    models = {
        name: make_model(base, name, cfg.targets, cfg.rank, cfg.alpha, cfg.dropout, cfg.seed)
        for name in names
    }
    peaks = {name: cfg.lr_full if name == "full" else cfg.lr for name in names}
    optimizers = {name: make_optimizer(models[name], peaks[name]) for name in names}
    steps = max(1, cfg.steps // len(names))
    rise = max(cfg.warmup, 2 / steps)

    def examples_of(step: int) -> tuple[list[Example], list[list[int]]]:
        indices = batch_indices(len(data.train), cfg.batch_size, step, cfg.seed)
        examples = [data.train[i] for i in indices]
        return examples, [labels(e) for e in examples]

    def loss_of(model: Any, step: int) -> Tensor:
        batch = collate(*examples_of(step), context, cfg.packing, run.device)
        return response_loss(plain(model), batch)

    if cfg.method == "trl":
        from alignment.library import train_with_trl

        rate = lambda step: one_cycle(step, steps, 1.0, rise)  # noqa: E731
        train_with_trl(
            run, models["trl"], tokenizer, optimizers["trl"], rate, examples_of, steps,
            cfg.batch_size, cfg.clip,
        )  # fmt: skip
    else:
        for name, model in models.items():
            run.track(**{name: trainable(model), f"{name}_optimizer": optimizers[name]})
        every = max(1, steps // cfg.evaluations)
        for step in run.steps(steps):
            for name, model in models.items():
                optimizer, suffix = optimizers[name], f"_{name}" if len(models) > 1 else ""
                for group in optimizer.param_groups:
                    group["lr"] = one_cycle(step, steps, peaks[name], rise)
                with run.autocast():
                    loss = loss_of(model, step)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trainable(model).values(), cfg.clip)
                optimizer.step()
                run.log({f"train/loss{suffix}": loss, f"train/lr{suffix}": group["lr"]}, step)
                if step % every == 0 or step == steps - 1:
                    run.log({f"valid/nll{suffix}": response_nll(model, data.valid[:100])}, step)
    run.save()
    run.result(
        report(
            run, base, models, tokenizer, data, examples_of(0)[0], lambda m: loss_of(m, 0),
            cfg.tests,
        )
    )  # fmt: skip


if __name__ == "__main__":
    train()
