"""Pretrain a GPT on a text.

python -m pretraining.train +size=tiny                       2019's recipe, by character
python -m pretraining.train +size=tiny +experiment=modern    today's
python -m pretraining.train +size=tiny data=wikitext2        byte pairs; what week 8 fine-tunes
python -m pretraining.train +size=tiny +experiment=mlm       hidden tokens instead of the next
python -m pretraining.train processes=8                      several GPUs, as torchrun starts them
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass
class Config(LabConfig):
    """Week 7: pretraining a GPT."""

    data: str = "wikitext2"
    """Text to learn: a text set of the registry."""
    tokenizer: Literal["auto", "char", "bpe"] = "auto"
    """Characters, or byte pairs of the training text; auto is char for tinyshakespeare."""
    vocabulary: PositiveInt = 50_257
    """Vocabulary size for byte pairs."""
    architecture: Literal["gpt2", "modern"] = "gpt2"
    """The network of 2019 or today's; model.py lists the differences."""
    objective: Literal["next", "masked"] = "next"
    """Predict the next token (GPT), or hidden tokens from both sides (BERT)."""
    context: PositiveInt = 1024
    """Tokens that the model sees at once."""
    width: PositiveInt = 768
    """Dimensions of a token inside the model."""
    layers: PositiveInt = 12
    """Layers."""
    heads: PositiveInt = 12
    """Attention heads of a layer."""
    dropout: Share = 0.2
    """Share of activations set to 0 in training; useful when a text is read many times."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW for everything, or Muon for the matrices inside the layers and AdamW for the rest."""
    lr: PositiveFloat = 6e-4
    """Peak learning rate of AdamW."""
    matrix_lr: PositiveFloat = 0.02
    """Peak learning rate of Muon."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of all matrices."""
    clip: NonNegativeFloat = 1.0
    """Largest norm of the whole gradient; larger gradients are scaled down. 0: no clipping."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """Warm-up and cosine decay, or warm-up, level and linear decay to 0."""
    warmup: Share = 0.05
    """Share of the steps over which the learning rate rises."""
    decay: Share = 0.5
    """Share of the steps over which the learning rate falls at the end (wsd)."""
    steps: PositiveInt = 2000
    """Optimiser steps."""
    teraflops: PositiveFloat | None = None
    """Training compute in 10^12 floating-point operations; when given, it decides the steps."""
    batch_size: PositiveInt = 64
    """Windows per step, of all processes and micro-batches together."""
    micro_batch: PositiveInt | None = 8
    """Windows that go through the model at once; null is all. The gradient is the same."""
    compile: bool = False
    """Let torch.compile fuse the network (minutes at the start; for long runs on a GPU)."""
    mask_rate: Share = 0.15
    """Share of the tokens that are hidden (objective=masked)."""
    evaluations: PositiveInt = 10
    """Evaluations on validation text, with samples, during training, evenly spaced."""
    eval_tokens: PositiveInt = 100_000
    """Tokens of the validation text in such an evaluation; the final one uses all."""
    prompts: list[str] = field(default_factory=list)
    """Prompts of the samples; without any, two passages of the validation text."""
    sample_length: PositiveInt = 200
    """Tokens of a sample, if the context has room."""
    temperature: NonNegativeFloat = 0.8
    """Temperature of the samples; 0 always takes the likeliest token."""
    top_k: PositiveInt | None = None
    """Samples draw from the k likeliest tokens only."""
    top_p: Annotated[float, Bounds(above=0, most=1)] | None = 0.95
    """Samples draw from the likeliest tokens that together have this probability."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width must be an even multiple of heads; got width={self.width} and "
                f"heads={self.heads}, try width={64 * self.heads}"
            )
        if self.objective == "next" and self.context < 2:
            raise UsageError("context=1 leaves no room for a sample after its first token; try 2")
        if self.objective == "masked" and self.mask_rate == 0:
            raise UsageError("mask_rate=0 hides no token: nothing to learn; try mask_rate=0.15")


@lab("pretraining", Config, distributed=True)
def train(cfg: Config, run: Run) -> None:
    """Windows of a text, the loss on every next token, a step."""
    import torch
    import torch.nn.functional as F

    from labkit.data import TextData
    from labkit.learning.parallel import DataParallel
    from pretraining.data import count_windows, encode, sample_batch
    from pretraining.mlm import IGNORE, masked_batch
    from pretraining.model import GPT, Shape
    from pretraining.optimizer import build_optimizers
    from pretraining.report import Reporter, Samples
    from pretraining.schedule import cosine, warmup_stable_decay
    from pretraining.speed import Meter, steps_for
    from pretraining.tokenizer import MASK, prepare_tokenizer, special_id

    data = run.data(cfg.data, TextData)
    tokenizer = prepare_tokenizer(run.dir, cfg.tokenizer, data, cfg.vocabulary)
    tokens = {
        name: encode(tokenizer, text).to(run.device)
        for name, text in (("train", data.train), ("valid", data.valid), ("test", data.test))
    }
    count_windows(tokens["train"], cfg.context)  # fails at once if the text is too short
    shape = Shape(len(tokenizer), cfg.context, cfg.width, cfg.layers, cfg.heads)
    masked, mask = cfg.objective == "masked", special_id(tokenizer, MASK)
    model = GPT(shape, cfg.architecture, cfg.dropout, causal=not masked).to(run.device)
    optimizers = build_optimizers(
        model, cfg.optimizer, cfg.lr, cfg.matrix_lr, cfg.weight_decay, precision=run.precision
    )
    run.track(model=model, **{f"optimizer{i}": each for i, each in enumerate(optimizers)})
    samples = Samples(cfg.prompts, cfg.sample_length, cfg.temperature, cfg.top_k, cfg.top_p)
    reporter = Reporter(
        run, model, tokenizer, data, tokens, samples, cfg.eval_tokens, cfg.mask_rate
    )
    network: Any = torch.compile(model) if cfg.compile else model
    parallel = DataParallel(network, run.device, cfg.batch_size)

    per_step = cfg.batch_size * cfg.context
    steps = cfg.steps if cfg.teraflops is None else steps_for(cfg.teraflops, shape, per_step)
    warmup, every = round(cfg.warmup * steps), max(1, steps // cfg.evaluations)
    meter = Meter(shape, run.device, run.precision, run.dir)
    for step in run.steps(steps):
        if cfg.schedule == "cosine":
            factor = cosine(step, steps, warmup)
        else:
            factor = warmup_stable_decay(step, steps, warmup, round(cfg.decay * steps))
        # Looked up at every step: resuming puts new groups into the optimizers.
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = factor * group["peak_lr"]
        x, y = sample_batch(tokens["train"], cfg.context, cfg.batch_size, step, cfg.seed)
        if masked:
            seed = (cfg.seed << 32) + step
            x, y = masked_batch(x, mask, shape.vocabulary, cfg.mask_rate, seed)
        # Same divisor for all parts, so micro-batches and processes add up to the batch's mean.
        asked = (y != IGNORE).sum() / parallel.processes
        loss = torch.zeros((), device=run.device)
        parts = parallel.micro_batches(x, y, cfg.micro_batch or cfg.batch_size)
        for i, (inputs, targets) in enumerate(parts):
            with parallel.accumulate(last=i == len(parts) - 1):
                with run.autocast():
                    logits = parallel.model(inputs)
                part = F.cross_entropy(
                    logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE,
                    reduction="sum",
                ) / asked  # fmt: skip
                part.backward()
            loss += part.detach()
        if cfg.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        meter.tokens += per_step
        if step % cfg.log_every == 0 or step == steps - 1:
            rates = {"train/lr": factor * cfg.lr}
            if cfg.optimizer == "muon":
                rates["train/lr_muon"] = factor * cfg.matrix_lr
            run.log({"train/loss": parallel.mean(loss), **rates}, step)
            meter.look(step)
        if (step + 1) % every == 0 or step in (0, steps - 1):
            reporter.look(step)
            meter.restart()
    run.save()
    run.result(reporter.final())


if __name__ == "__main__":
    train()
