"""Train a GPT with its states divided among processes, beside the same training in one process.

    python -m systems.zero.train +size=tiny            stage 3 in four processes
    python -m systems.zero.train +size=tiny stage=1    or 0 (plain data parallelism), 2
    python -m systems.zero.train +size=tiny weights=bf16     mixed precision: 2 + 2 + 12 bytes

The run starts the processes itself; they share this machine's cores, so nothing gets faster. It is
about memory, messages, and the losses being the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 20: ZeRO."""

    data: str = "wikitext2"
    """Text to learn."""
    stage: Annotated[int, Bounds(least=0, most=3)] = 3
    """ZeRO's stage; 0 divides nothing."""
    ranks: Annotated[int, Bounds(least=1, most=16)] = 4
    """Processes."""
    weights: Literal["fp32", "bf16"] = "bf16"
    """Type of weights and gradients; bf16 keeps a float32 copy in the optimiser's states."""
    vocabulary: PositiveInt = 4096
    """Byte pairs."""
    context: PositiveInt = 256
    """Tokens of a window."""
    width: PositiveInt = 512
    """Dimensions of a token inside the model."""
    layers: PositiveInt = 8
    """Layers."""
    heads: PositiveInt = 8
    """Attention heads of a layer."""
    steps: PositiveInt = 2000
    """Optimiser steps."""
    batch_size: PositiveInt = 32
    """Windows per step, of all processes together."""
    lr: PositiveFloat = 1e-3
    """Learning rate of AdamW, the same in all steps."""
    clip: PositiveFloat = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.ranks:
            fit = self.ranks * max(1, self.batch_size // self.ranks)
            raise UsageError(
                f"batch_size={self.batch_size} cannot be shared by ranks={self.ranks}; "
                f"try batch_size={fit}"
            )
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width={self.width} must be an even multiple of heads={self.heads}; try heads=2"
            )


@lab("systems.zero", Config, needs_gpu=False)
def train(cfg: Config, run: Run) -> None:
    """The same batch to the processes and to one model alone; then both update."""
    import torch
    import torch.nn.functional as F

    from labkit.data import TextData
    from pretraining import Shape, build_tokenizer, encode, sample_batch
    from systems.zero.ranks import Cluster
    from systems.zero.report import report
    from systems.zero.worker import Worker, build_model

    data = run.data(cfg.data, TextData)
    tokenizer = build_tokenizer("bpe", data.name, data.train, cfg.vocabulary)
    tokens, valid = encode(tokenizer, data.train), encode(tokenizer, data.valid)
    shape = Shape(len(tokenizer), cfg.context, cfg.width, cfg.layers, cfg.heads)
    alone = build_model(shape, cfg.seed)
    optimizer = torch.optim.AdamW(alone.parameters(), cfg.lr, weight_decay=0.0)
    seen: dict[str, float] = {"loss_gap": 0.0, "gradient_ratio": 0.0, "bytes": 0.0, "sent": 0.0}
    arguments = (shape, cfg.stage, cfg.weights, cfg.lr, cfg.clip, cfg.seed)
    with Cluster(cfg.ranks, Worker, *arguments) as cluster:
        run.track(cluster=cluster, model=alone, optimizer=optimizer, seen=seen)
        for step in run.steps(cfg.steps):
            x, y = sample_batch(tokens, cfg.context, cfg.batch_size, step, cfg.seed)
            look = step < 2  # Adam's moments are there from the second step on
            rows = [
                (xs.numpy(), ys.numpy(), look)
                for xs, ys in zip(x.chunk(cfg.ranks), y.chunk(cfg.ranks), strict=True)
            ]
            found = cluster.each("step", rows)
            loss = F.cross_entropy(alone(x).flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(alone.parameters(), cfg.clip)
            optimizer.step()
            gap = abs(found[0]["loss"] - loss.item())
            seen["loss_gap"] = max(seen["loss_gap"], gap)
            if step == 0:
                seen["gradient_ratio"] = found[0]["norm"] / norm.item()
            if look:
                seen["bytes"] = max(each["bytes"] for each in found)
                seen["sent"] = max(each["sent"] for each in found)
            logged = {"train/loss": found[0]["loss"], "train/loss_alone": loss.detach()}
            run.log(logged | {"train/gap": gap, "train/lr": cfg.lr}, step)
        run.save()
        end = tokenizer.eos_token_id
        run.result(report(run, cluster, alone, valid, end, seen, cfg.stage, cfg.ranks, cfg.weights))


if __name__ == "__main__":
    train()
