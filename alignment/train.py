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

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Config(LabConfig):
    """Week 8: instruction tuning."""

    data: str = "alpaca"
    """alpaca, or commands (embedded)."""
    commands: float = 0.2
    """Share of the training rows that are commands, whose answers can be checked."""
    base: str = "gpt2"
    """Model to tune: lab://pretraining/tiny, a folder, or a name on the hub."""
    method: Literal["lora", "full", "compare", "trl"] = "lora"
    """LoRA by hand, full fine-tuning, both on the same batches, or LoRA by peft and trl."""
    rank: int = 16
    """Rank of the update."""
    alpha: float = 32.0
    """The update is multiplied by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["c_attn", "c_proj", "c_fc"])
    """Last names of the layers that get an update; lm_head is the head (not for method=trl)."""
    dropout: float = 0.0
    """Dropout of the base while it is tuned, and of the update's input."""
    context: int = 512
    """Tokens in a row of the batch; longer examples are left out."""
    packing: bool = True
    """Pack several examples into a row; false: one per row, with padding."""
    isolate: bool = True
    """Attention stays inside an example; false lets packed examples see each other."""
    learn_prompt: bool = False
    """Loss on the prompt as well; false is correct."""
    learn_end: bool = True
    """Loss on the end-of-text token; true is correct."""
    merge_scale: float | None = None
    """Factor of the update when it is merged; null is alpha / rank, anything else is wrong."""
    steps: int = 1200
    """Optimiser steps; method=compare divides them between its two models."""
    batch_size: int = 128
    """Examples a step."""
    lr: float = 1e-3
    """Peak of LoRA's one-cycle learning rate."""
    lr_full: float = 1e-4
    """The same for full fine-tuning."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    tests: int = 1000
    """Maximal number of held-out examples for the likelihood, and of held-out commands."""
    evaluations: int = 10
    """Evaluations on 100 validation examples during training, evenly spaced."""

    def __post_init__(self) -> None:
        for name in "rank alpha context steps batch_size lr lr_full clip tests evaluations".split():
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("commands", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be from 0 to below 1, got {getattr(self, name)}")
        if not 0 <= self.warmup <= 1:
            raise UsageError(f"warmup must be from 0 to 1, got {self.warmup}")
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
    from alignment.packing import collate
    from alignment.report import report
    from alignment.students import make_optimizer, make_student, plain
    from labkit.data import InstructionData, batch_indices
    from pytorch_mastery import one_cycle

    rows = run.data(cfg.data, InstructionData)
    commands = rows if rows.name == "commands" else run.data("commands", InstructionData)
    texts = (f"{row.instruction}\n{row.input}\n{row.output}" for row in rows.train)
    base, tokenizer = load_base(cfg.base, run, texts, cfg.dropout)
    context = check_context(base, cfg.context)
    data = mix(rows, commands, cfg.commands, tokenizer, context, cfg.batch_size)

    names = ("lora", "full") if cfg.method == "compare" else (cfg.method,)
    students = {
        name: make_student(base, name, cfg.targets, cfg.rank, cfg.alpha, cfg.dropout, cfg.seed)
        for name in names
    }
    peaks = {name: cfg.lr_full if name == "full" else cfg.lr for name in names}
    optimizers = {name: make_optimizer(students[name], peaks[name]) for name in names}
    steps = max(1, cfg.steps // len(names))
    rise = max(cfg.warmup, 2 / steps)

    def examples_of(step: int) -> tuple[list[Example], list[list[int]]]:
        indices = batch_indices(len(data.train), cfg.batch_size, step, cfg.seed)
        examples = [data.train[i] for i in indices]
        return examples, [labels(e, cfg.learn_prompt, cfg.learn_end) for e in examples]

    def loss_of(model: Any, step: int) -> Tensor:
        batch = collate(*examples_of(step), context, cfg.packing, cfg.isolate, run.device)
        return response_loss(plain(model), batch)

    if cfg.method == "trl":
        from alignment.library import train_with_trl

        rate = lambda step: one_cycle(step, steps, 1.0, rise)  # noqa: E731
        train_with_trl(
            run, students["trl"], tokenizer, optimizers["trl"], rate, examples_of, steps,
            cfg.batch_size, cfg.clip,
        )  # fmt: skip
    else:
        for name, model in students.items():
            run.track(**{name: trainable(model), f"{name}_optimizer": optimizers[name]})
        every = max(1, steps // cfg.evaluations)
        for step in run.steps(steps):
            for name, model in students.items():
                optimizer, suffix = optimizers[name], f"_{name}" if len(students) > 1 else ""
                for group in optimizer.param_groups:
                    group["lr"] = one_cycle(step, steps, peaks[name], rise)
                with run.autocast():
                    loss = loss_of(model, step)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trainable(model).values(), cfg.clip)
                optimizer.step()
                run.log({f"train/loss{suffix}": loss, "train/lr": group["lr"]}, step)
                if step % every == 0 or step == steps - 1:
                    run.log({f"valid/nll{suffix}": response_nll(model, data.valid[:100])}, step)
    run.save()
    run.result(
        report(
            run, base, students, tokenizer, data, examples_of(0)[0], lambda m: loss_of(m, 0),
            cfg.tests, cfg.merge_scale,
        )
    )  # fmt: skip


if __name__ == "__main__":
    train()
