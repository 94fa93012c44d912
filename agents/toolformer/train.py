"""Toolformer: a small language model teaches itself to use a calculator.

    python -m agents.toolformer.train +size=tiny

One loop in two parts. First the base model learns to read text with numbers. Then candidate calls
are drawn, their results computed, and those kept that make the text likelier (selection.py); the
same model is fine-tuned on the text with these calls in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from labkit import LabConfig, Run, RunFailed, UsageError, lab
from labkit.config.bounds import Fraction, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 18: Toolformer."""

    data: Literal["sums"] = "sums"
    """Text with numbers, made by the week itself."""
    texts: PositiveInt = 400_000
    """Texts of the base model."""
    noted: Fraction = 0.3
    """Share of them with a note in brackets (see corpus.py)."""
    documents: PositiveInt = 20_000
    """Texts in which candidate calls are tried."""
    candidates: PositiveInt = 4
    """Calls tried in each."""
    threshold: float = 0.5
    """τ: by how much a call must lower the weighted loss, in nats."""
    tests: PositiveInt = 1000
    """Texts of the test."""
    context: PositiveInt = 128
    """Tokens that the model sees."""
    width: PositiveInt = 256
    """Width of the GPT."""
    layers: PositiveInt = 4
    """Its layers."""
    heads: PositiveInt = 4
    """Its attention heads."""
    steps: PositiveInt = 6000
    """Optimiser steps of the base model."""
    tune_steps: PositiveInt = 2000
    """Optimiser steps of the fine-tuning."""
    batch_size: PositiveInt = 256
    """Texts a step."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate of AdamW: embedding and head."""
    muon_lr: PositiveFloat = 1e-2
    """Peak learning rate of Muon: the matrices of the layers."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width={self.width} must be an even multiple of heads={self.heads}; try heads=2"
            )


@lab("agents.toolformer", Config)
def train(cfg: Config, run: Run) -> None:
    """Read, try calls, keep those that help, learn from them."""
    import hashlib

    import numpy as np
    import torch

    from agents import tokens
    from agents.policy import lesson_loss, make_model
    from agents.toolformer import report
    from agents.toolformer.calls import candidates, is_useful
    from agents.toolformer.corpus import ARROW, CLOSE, NOTES, SENTENCES, base_texts, draw
    from agents.toolformer.lessons import Texts
    from agents.toolformer.selection import augmented, select
    from labkit.data import check_batch_size
    from labkit.files import write_text
    from labkit.learning.muon import Muon, others
    from labkit.show.console import say
    from pretraining import cosine

    check_batch_size(min(cfg.texts, cfg.documents), cfg.batch_size)
    rng = np.random.default_rng((cfg.seed, 2))
    base = base_texts(rng, cfg.texts, cfg.noted)
    documents = [draw(rng, "train") for _ in range(cfg.documents)]
    calls = candidates(documents, cfg.candidates, rng)
    fixed = np.random.default_rng(3)  # the test is the same in every run
    tests = [draw(fixed, "test") for _ in range(cfg.tests)]
    digest = hashlib.sha256("\n".join([*base, *(d.text for d in documents)]).encode()).hexdigest()
    run.generated(cfg.data, {"train": cfg.texts, "calls": len(calls), "test": cfg.tests}, digest)
    pieces = tokens.vocabulary([*SENTENCES, *NOTES], [ARROW, CLOSE])
    tokenizer = tokens.build(pieces)
    model = make_model(len(tokenizer), cfg.context, cfg.width, cfg.layers, cfg.heads)
    model.to(run.device)
    lessons = Texts(base, tokenizer, cfg.context).to(run.device)
    tuned: Texts | None = None
    matrices = list(model.blocks.parameters())
    adamw = torch.optim.AdamW(others(model, matrices), cfg.lr, (0.9, 0.99), fused=True)
    muon = Muon(matrices, cfg.muon_lr, precision=run.precision)
    found: dict[str, Any] = {}  # what the base model decided and reached, kept for a resumed run
    run.track(model=model, adamw=adamw, muon=muon, found=found)

    for step in run.steps(cfg.steps + cfg.tune_steps):
        if step == cfg.steps:
            found["kept"] = select(model, tokenizer, documents, calls, cfg.threshold).tolist()
            found["plain_match"] = report.match(model, tokenizer, tests, tool=False)
            found["plain_nll"] = report.text_loss(model, tokenizer, [d.text for d in tests])
            say(f"{sum(found['kept']):,} of {len(calls):,} calls make the text likelier")
            if not any(found["kept"]):
                raise RunFailed(
                    "no call lowered the loss enough, so there is nothing to learn from; "
                    "type a lower threshold=, or more steps="
                )
        if step >= cfg.steps and tuned is None:
            chosen = [c for c, kept in zip(calls, found["kept"], strict=True) if kept]
            tuned = Texts(augmented(documents, chosen), tokenizer, cfg.context).to(run.device)
        part, total = (step, cfg.steps) if tuned is None else (step - cfg.steps, cfg.tune_steps)
        rate = cosine(part, total, warmup=max(1, total // 50), floor=0.0)
        adamw.param_groups[0]["lr"] = rate * cfg.lr
        muon.param_groups[0]["lr"] = rate * cfg.muon_lr
        rows = (lessons if tuned is None else tuned).batch(cfg.batch_size, step, cfg.seed)
        with run.autocast():
            loss = lesson_loss(model, *rows)
        model.zero_grad()
        loss.backward()
        adamw.step()
        muon.step()
        if step % cfg.log_every == 0 or step == cfg.steps + cfg.tune_steps - 1:
            run.log({"train/loss": loss, "train/lr": rate * cfg.lr}, step)
    run.save()

    useful = np.array([is_useful(c, documents[c.document]) for c in calls])
    kept = np.array(found["kept"])
    run.plot("training", "train/loss")
    if run.writes:
        shown = report.examples(model, tokenizer, tests[:20])
        write_text(run.dir / "samples" / "completions.txt", shown)
    run.note(calls=len(calls), kept=int(kept.sum()), useful=int(useful.sum()))
    run.result(
        {
            "tool_match": report.match(model, tokenizer, tests, tool=True),
            "plain_match": found["plain_match"],
            "disabled_match": report.match(model, tokenizer, tests, tool=False),
            "filter_precision": 100 * (kept & useful).sum() / kept.sum(),
            "filter_recall": 100 * (kept & useful).sum() / max(useful.sum(), 1),
            "plain_nll": found["plain_nll"],
            "disabled_nll": report.text_loss(model, tokenizer, [d.text for d in tests]),
        }
    )


if __name__ == "__main__":
    train()
