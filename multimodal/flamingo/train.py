"""Teach a frozen language model to see.

    python -m multimodal.flamingo.train +size=tiny     week 7's model and this week's image tower

It writes captions, answers questions about colour and shape, and finds out from examples what is
asked. Only the resampler and the gated layers are trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 17: Flamingo in small."""

    data: Literal["scenes"] = "scenes"
    """Rendered scenes with captions, made by the week itself."""
    scenes: PositiveInt = 50_000
    """Training scenes."""
    language: str = "gpt2"
    """Frozen language model: lab://pretraining/tiny, a folder, or a name on the hub."""
    vision: str = "openai/clip-vit-base-patch32"
    """Frozen image tower: lab for this week's own, or a published CLIP by folder or name."""
    latents: PositiveInt = 64
    """Latents of a picture."""
    layers: PositiveInt = 2
    """Layers of the resampler."""
    heads: PositiveInt = 8
    """Heads of the resampler and of the gated layers."""
    chunks: PositiveInt = 5
    """Pictures in a row, each with its text; the last has chunks - 1 examples before it."""
    tests: PositiveInt = 2000
    """Rows of each kind that are measured."""
    steps: PositiveInt = 5000
    """Optimiser steps."""
    batch_size: PositiveInt = 64
    """Rows in a step: captions, questions and few-shot rows in turn."""
    lr: PositiveFloat = 3e-4
    """Peak learning rate of AdamW, which trains the gates, the latents and the norms."""
    muon_lr: NonNegativeFloat = 3e-3
    """Peak learning rate of Muon, for the matrices of attention and MLPs; 0: AdamW for all."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of the matrices."""
    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    evaluations: PositiveInt = 10
    """Looks at the validation accuracy during training, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunks < 2:
            raise UsageError("chunks=1 leaves no example before a question; try chunks=5")


@lab("multimodal.flamingo", Config)
def train(cfg: Config, run: Run) -> None:
    """Rows of pictures and text, the loss on the answers, a step of the new layers."""
    import torch

    from multimodal.flamingo import start
    from multimodal.flamingo.model import Flamingo, answer_loss, gates, without_pictures
    from multimodal.flamingo.report import look, report
    from multimodal.start import optimizers_of, set_rates
    from pytorch_mastery import one_cycle

    language, tokenizer = start.language_model(cfg.language, run)
    tower = start.image_tower(cfg.vision, run)
    pools = start.pools(cfg.scenes, tower.side, run)
    episodes = start.episodes(pools, tokenizer, cfg.chunks, language.shape.context)
    states = {n: start.states_of(tower, pool.pictures, run.autocast) for n, pool in pools.items()}
    picture, _ = start.special(tokenizer)
    try:
        model = Flamingo(language, picture, tower.width, cfg.latents, cfg.layers, cfg.heads)
    except ValueError as error:
        raise UsageError(f"heads={cfg.heads}: {error}; try heads=4") from error
    model.to(run.device)
    optimizers = optimizers_of(
        model, cfg.lr, cfg.muon_lr, cfg.weight_decay, run.precision, ("attention", "mlp")
    )
    first = {"gate_jump": 0.0}
    run.track(
        model=dict(model.trained()), first=first,
        **{f"optimizer{i}": each for i, each in enumerate(optimizers)},
    )  # fmt: skip
    trained = [parameter for _, parameter in model.trained()]
    every = max(1, cfg.steps // cfg.evaluations)

    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=max(cfg.warmup, 2 / cfg.steps))
        set_rates(optimizers, rate)
        rows = episodes["train"].batch(cfg.batch_size, step, cfg.seed).to(run.device)
        with run.autocast():
            loss = answer_loss(model, rows.tokens, states["train"][rows.pictures], rows.asked)
        if step == 0:  # closed gates: the new layers must not have changed anything yet
            with run.autocast():  # week 7's kernels differ in rounding without gradients
                alone = without_pictures(language, rows.tokens, rows.asked)
            first["gate_jump"] = abs(float(loss.detach() - alone))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, cfg.clip)
        for optimizer in optimizers:
            optimizer.step()
        last = step == cfg.steps - 1
        if step % cfg.log_every == 0 or last:
            run.log({"train/loss": loss, "train/lr": rate * cfg.lr, **gates(model)}, step)
        if (step + 1) % every == 0 or last:
            with run.autocast():
                run.log(look(model, episodes["valid"], states["valid"]), step)
    run.save()

    run.plot("training", "train/loss")
    start.save(model, run.dir / "model")
    with run.autocast():
        metrics = report(run, model, tokenizer, episodes["test"], states["test"], cfg.tests)
    run.result(metrics | first)


if __name__ == "__main__":
    train()
