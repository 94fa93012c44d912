"""Week 7's modern recipe against nanoGPT's for a CPU: seconds to one loss on Tiny Shakespeare.

    python benchmarks/nanogpt_recipe.py [--seconds 300] [--times 3] [--seed 0] [--threads N]

Theirs is the recipe that the README of nanoGPT (github.com/karpathy/nanoGPT) gives for machines
without a GPU, written anew: a GPT-2 of 4 layers, 4 heads and width 128, context 64, batches of 12,
no dropout, no biases; AdamW at 1e-3 (betas 0.9 and 0.99, weight decay 0.1 on matrices), 100 steps
of warm-up, a cosine down to 1e-4, gradients clipped at 1; float32. Published are 2000 steps; here
it gets `--seconds`, with a cosine as long as that, because it gains from them.
Ours has the same size and context: architecture=modern, Muon, and bf16 where the hardware has it.

A loss on the way down a schedule depends on its length, so "the first time it gets there" would say
little. Ours is therefore given seconds / times from the start, with a schedule of that length, and
the losses at both ends are compared: if ours is not above theirs, it is `times` times as fast. The
loss is that of the whole validation split in windows of 64, each character predicted once; the time
for it is not counted on either side.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.data import TextData, load
from labkit.machine import device
from pretraining import GPT, Shape, sample_batch, warmup_stable_decay
from pretraining.optimizer import build_optimizers

CONTEXT, WIDTH, LAYERS, HEADS = 64, 128, 4, 4
BATCH, LR, MATRIX_LR = 32, 5e-3, 0.02
Step = Callable[[int, float], None]
"""One training step, given its number and how much of the time is used up, from 0 to 1."""


class Block(nn.Module):
    """A layer of GPT-2 as nanoGPT builds it, without biases: (B, T, C) -> (B, T, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(WIDTH, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        mlp: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + mlp


class Theirs(nn.Module):
    """Characters (B, T) to logits (B, T, V): learned positions, the head tied to the embedding."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if residual else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions.weight[: tokens.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.embedding.weight)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def theirs(text: Tensor, vocabulary: int, seed: int) -> tuple[nn.Module, Step]:
    """The model and its step, as published, with AdamW's fused kernel."""
    torch.manual_seed(seed)
    model, generator = Theirs(vocabulary), torch.Generator().manual_seed(seed)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    window = torch.arange(CONTEXT + 1)

    def step(number: int, used: float) -> None:
        cosine = 1e-4 + 0.5 * (1 + math.cos(math.pi * used)) * (1e-3 - 1e-4)
        for group in optimizer.param_groups:
            group["lr"] = min(1.0, (number + 1) / 101) * cosine
        starts = torch.randint(len(text) - CONTEXT, (12,), generator=generator)
        rows = text[starts[:, None] + window]
        loss = loss_of(model(rows[:, :-1]), rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return model, step


def ours(text: Tensor, vocabulary: int, seed: int) -> tuple[nn.Module, Step]:
    """The model of the same size and its step, by experiment=modern."""
    torch.manual_seed(seed)
    model = GPT(Shape(vocabulary, CONTEXT, WIDTH, LAYERS, HEADS), "modern")
    optimizers = build_optimizers(model, "muon", LR, MATRIX_LR, 0.0)
    bf16 = device.resolve_precision("auto", torch.device("cpu")) == "bf16"

    def step(number: int, used: float) -> None:
        factor = warmup_stable_decay(round(1000 * used), 1001, 0, 500)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = factor * group["peak_lr"]
        x, y = sample_batch(text, CONTEXT, BATCH, number, seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)
        loss_of(logits, y).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return model, step


def train(step: Step, seconds: float) -> tuple[int, float]:
    """Steps until the time is up, and the seconds that they took."""
    begun, number, used = time.perf_counter(), 0, 0.0
    while used < seconds:
        step(number, used / seconds)
        number += 1
        used = time.perf_counter() - begun
    return number, used


@torch.no_grad()
def validation_loss(model: nn.Module, text: Tensor) -> float:
    """Nats per character of the split, each predicted once, but for a last window cut short."""
    count = (len(text) - 1) // CONTEXT
    x, y = (text[i : i + count * CONTEXT].view(count, CONTEXT) for i in (0, 1))
    parts = zip(x.split(128), y.split(128), strict=True)
    return sum(float(loss_of(model(a), b)) * len(a) for a, b in parts) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="for theirs")
    parser.add_argument("--times", type=float, default=3.0, help="ours gets so many times less")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = load("tinyshakespeare", kind=TextData)
    assert isinstance(data, TextData)
    names = {character: i for i, character in enumerate(sorted(set(data.train + data.valid)))}
    text, held_out = (torch.tensor([names[c] for c in part]) for part in (data.train, data.valid))
    losses = []
    print(f"{'':12} {'parameters':>10} {'steps':>7} {'seconds':>8} {'characters':>11} {'loss':>7}")
    for name, make, rows, seconds in (
        ("nanoGPT", theirs, 12, args.seconds),
        ("ours", ours, BATCH, args.seconds / args.times),
    ):
        train(make(text, len(names), args.seed)[1], 1.0)  # first calls set kernels up
        model, step = make(text, len(names), args.seed)
        steps, used = train(step, seconds)
        losses.append(validation_loss(model, held_out))
        size = sum(p.numel() for p in model.parameters())
        seen = steps * rows * CONTEXT
        print(
            f"{name:12} {size:10,} {steps:7} {used:8.1f} {seen:11,} {losses[-1]:7.4f}", flush=True
        )
    reached = "reached" if losses[1] <= losses[0] else "NOT reached"
    print(
        f"nanoGPT's loss after {args.seconds:g} s is {reached} by ours in 1/{args.times:g} of the "
        f"time ({losses[1] - losses[0]:+.4f} nats; {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
