"""A training step of GPT-2 124M: week 7's model against Hugging Face's, on the same machine.

    python benchmarks/gpt2_step.py [--batch 4] [--length 256] [--rounds 5] [--threads N]

Forward, backward and AdamW (PyTorch's fused one) on the same tokens from the same weights, without
dropout, in float32 and in bf16 autocast. Theirs is GPT2LMHeadModel with PyTorch's own attention
(sdpa), its loss computed by itself, and without the cache that it would otherwise fill. The two
take turns, and the median of the rounds' ratios is reported.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from pretraining import from_huggingface

Losses = Callable[[Tensor], Tensor]
Step = Callable[[Tensor], tuple[float, float]]
"""From tokens (B, T) to the seconds of a step, and its loss."""


def loss_of_ours(model: nn.Module) -> Losses:
    def loss(tokens: Tensor) -> Tensor:
        logits = model(tokens)[:, :-1]
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    return loss


def loss_of_theirs(model: nn.Module) -> Losses:
    return lambda tokens: model(tokens, labels=tokens, use_cache=False).loss


def stepper(model: nn.Module, loss_of: Losses, bf16: bool) -> Step:
    """Forward, backward and AdamW on one model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(tokens: Tensor) -> tuple[float, float]:
        begun = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_of(tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - begun, loss.item()

    return step


def compare(batch: int, length: int, rounds: int, bf16: bool) -> None:
    """Print seconds of a step on both sides and the ratio."""
    torch.manual_seed(0)
    config = GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    theirs = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa").train()
    ours = from_huggingface(theirs).train()
    steps = {
        "ours": stepper(ours, loss_of_ours(ours), bf16),
        "Hugging Face": stepper(theirs, loss_of_theirs(theirs), bf16),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        tokens = torch.randint(config.vocab_size, (batch, length))
        losses = {}
        for name in sorted(steps, reverse=turn % 2 == 1):
            used, losses[name] = steps[name](tokens)
            if turn:  # the first sets kernels and moments up
                seconds[name].append(used)
        apart = abs(losses["ours"] - losses["Hugging Face"])
        assert apart < (0.05 if bf16 else 1e-3), f"the losses are {apart} apart"
    kind = "bf16 autocast" if bf16 else "float32"
    print(f"{kind}, {sum(p.numel() for p in ours.parameters()):,} parameters, {batch} x {length}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        rate = batch * length / middle
        spread = f"({min(times):.3f} to {max(times):.3f})"
        print(f"  {name:13} {middle:7.3f} s {spread} {rate:7.0f} tokens/s")
    ratios = [b / a for a, b in zip(seconds["ours"], seconds["Hugging Face"], strict=True)]
    print(
        f"  theirs takes {statistics.median(ratios):.3f} times as long "
        f"({min(ratios):.3f} to {max(ratios):.3f}; {torch.get_num_threads()} threads)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = {"batch": 4, "length": 256, "rounds": 5, "threads": torch.get_num_threads()}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for bf16 in (False, True):
        compare(args.batch, args.length, args.rounds, bf16)


if __name__ == "__main__":
    main()
