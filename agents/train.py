"""Train a small agent on a teacher's traces, and examine it with the real tools.

    python -m agents.train +size=tiny                         ReAct: thoughts, calls, observations
    python -m agents.train +size=tiny +experiment=direct      the same model without tools
    python -m agents.train +size=tiny grammar=false           without constrained decoding
    python -m agents.ask "What is 47 times 85?"               ask the run that finished last

The training is plain supervised learning. What makes it an agent is the loop around it (react.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 18: an agent with a calculator and a wiki."""

    data: Literal["questions"] = "questions"
    """Questions with a teacher's traces, made by the week itself."""
    method: Literal["react", "direct"] = "react"
    """react: learns to call tools. direct: learns to write the answer at once."""
    grammar: bool = True
    """Decode under the grammar of well-formed steps."""
    examples: PositiveInt = 400_000
    """Questions of the training."""
    longest: PositiveInt = 6
    """Towns in the longest question of the training."""
    lengths: list[PositiveInt] = field(default_factory=lambda: [1, 2, 3, 4, 6, 8, 12])
    """Towns in the questions of the exam."""
    tests: PositiveInt = 1000
    """Questions of each kind in the exam."""
    context: PositiveInt = 1024
    """Tokens that the model sees."""
    width: PositiveInt = 384
    """Width of the GPT."""
    layers: PositiveInt = 6
    """Its layers."""
    heads: PositiveInt = 6
    """Its attention heads."""
    steps: PositiveInt = 12_000
    """Optimiser steps."""
    batch_size: PositiveInt = 256
    """Traces a step."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate of AdamW: embedding and head."""
    muon_lr: PositiveFloat = 1e-2
    """Peak learning rate of Muon: the matrices of the layers."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of both."""
    step_tokens: PositiveInt = 96
    """Tokens that the model may write in one step of a trace."""
    limit: PositiveInt = 26
    """Steps of a trace."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width={self.width} must be an even multiple of heads={self.heads}; try heads=2"
            )
        if self.step_tokens >= self.context:
            raise UsageError(
                f"step_tokens={self.step_tokens} leaves no room for a question in a context of "
                f"{self.context}; try context={4 * self.step_tokens}"
            )
        if not self.lengths:
            raise UsageError("lengths must name at least one length, like lengths=[1,2,3]")


@lab("agents", Config)
def train(cfg: Config, run: Run) -> None:
    """Learn from traces, then answer with tools."""
    import hashlib
    from itertools import islice

    import numpy as np
    import torch

    from agents import tokens
    from agents.policy import Lessons, LocalPolicy, lesson_loss, make_model, save
    from agents.questions import TEXTS, teacher
    from agents.report import report
    from agents.toolset import TOOLS
    from labkit.data import check_batch_size
    from labkit.learning.muon import Muon, others
    from pretraining import cosine

    check_batch_size(cfg.examples, cfg.batch_size)
    tasks = list(islice(teacher(np.random.default_rng((cfg.seed, 1)), cfg.longest), cfg.examples))
    texts = [task.trace if cfg.method == "react" else task.direct for task in tasks]
    digest = hashlib.sha256("\n\n".join(texts).encode()).hexdigest()
    run.generated(cfg.data, {"train": len(texts), "test": cfg.tests}, digest)
    calls = [f"{tool}[" for tool in (*TOOLS, "finish")]
    tokenizer = tokens.build(tokens.vocabulary(TEXTS, calls))
    lessons = Lessons(texts, tokenizer, cfg.context).to(run.device)
    model = make_model(len(tokenizer), cfg.context, cfg.width, cfg.layers, cfg.heads)
    model.to(run.device)
    allowed = TOOLS if cfg.method == "react" else ()
    free = LocalPolicy(model, tokenizer, allowed, cfg.step_tokens, grammar=False)
    policy = free
    if cfg.grammar:
        policy = LocalPolicy(model, tokenizer, allowed, cfg.step_tokens)
    matrices = list(model.blocks.parameters())
    adamw = torch.optim.AdamW(
        others(model, matrices), cfg.lr, (0.9, 0.99), weight_decay=cfg.weight_decay, fused=True
    )
    muon = Muon(matrices, cfg.muon_lr, weight_decay=cfg.weight_decay, precision=run.precision)
    run.track(model=model, adamw=adamw, muon=muon)

    for step in run.steps(cfg.steps):
        rate = cosine(step, cfg.steps, warmup=max(1, cfg.steps // 50), floor=0.0)
        adamw.param_groups[0]["lr"] = rate * cfg.lr
        muon.param_groups[0]["lr"] = rate * cfg.muon_lr
        with run.autocast():
            loss = lesson_loss(model, *lessons.batch(cfg.batch_size, step, cfg.seed))
        model.zero_grad()
        loss.backward()
        adamw.step()
        muon.step()
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            rates = {"train/lr": rate * cfg.lr, "train/lr_muon": rate * cfg.muon_lr}
            run.log({"train/loss": loss, **rates}, step)
    run.save()

    if run.writes:
        save(run.dir / "model", model, tokenizer)
    run.publish(lambda folder: save(folder, model, tokenizer))
    run.result(report(run, policy, free, tasks, cfg.tests, cfg.lengths, cfg.longest, cfg.limit))


if __name__ == "__main__":
    train()
