"""A step of this lab's DPO against one of trl's DPOTrainer: same model, batches and optimiser.

    python benchmarks/dpo_vs_trl.py
    python benchmarks/dpo_vs_trl.py --width 256 --layers 6 --rounds 5

Both know the reference's log-probabilities beforehand and have their rows as tokens, so what is
timed is a step of training alone: collation, forward pass, loss, backward pass, clipping of the
gradient and AdamW. They take turns; the median over rounds of the seconds a step is printed, and
the two losses, which must agree. trl's metrics (entropy, accuracy and more) are part of its step
and cannot be switched off.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from datasets import Dataset
from transformers import TrainerCallback

from labkit.data.sets import replies
from pretraining import GPT, Shape, to_huggingface
from rlhf.family import Family
from rlhf.library import make_trainer, rows_of
from rlhf.preferences import encode
from rlhf.settings import DPOSettings
from rlhf.start import word_tokenizer

LR = 1e-4


class Clock(TrainerCallback):
    """When each step of a Trainer begins, and its losses."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.losses: list[float] = []

    def on_step_begin(self, *arguments: Any, **others: Any) -> None:
        self.began.append(time.perf_counter())

    def on_log(self, *arguments: Any, logs: dict[str, float] | None = None, **others: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


def ours(model: GPT, family: Family, batches: torch.Tensor) -> tuple[list[float], list[float]]:
    """Seconds of each step, and losses; the first step is not counted."""
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.0, fused=True)
    model.train()
    began, losses = [], []
    for index in batches:
        began.append(time.perf_counter())
        loss = family.loss(model, index)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return gaps(began), losses


def theirs(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], batch: int, steps: int, threads: int
) -> tuple[list[float], list[float]]:
    """The same by trl's Trainer, on rows in the order of our batches."""
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            model, tokenizer, Dataset.from_list(rows), DPOSettings(lr=LR), (optimizer, schedule),
            folder, steps, batch, 1.0, True, 0,
        )  # fmt: skip
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
        trainer.add_callback(clock)
        torch.set_num_threads(threads)
        trainer.train()
    return gaps(clock.began), clock.losses


def gaps(began: list[float]) -> list[float]:
    return [b - a for a, b in itertools.pairwise(began[1:])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    torch.manual_seed(0)
    some = replies.replies().train[: args.batch * args.steps]
    tokenizer = word_tokenizer([text for row in some for text in vars(row).values()])
    pairs = encode(some, tokenizer, 32, 24)
    start = GPT(Shape(len(tokenizer), 32, args.width, args.layers, 4))
    family = Family("dpo", DPOSettings(lr=LR), pairs, start, "cpu")
    rows = rows_of(pairs, family.reference, range(len(pairs)))
    batches = torch.arange(len(pairs)).view(args.steps, args.batch)

    def mine() -> tuple[list[float], list[float]]:
        copy = GPT(start.shape)
        copy.load_state_dict(start.state_dict())
        return ours(copy, family, batches)

    def trls() -> tuple[list[float], list[float]]:
        model = to_huggingface(start)
        return theirs(model, tokenizer, rows, args.batch, args.steps, args.threads)

    sides: dict[str, Callable[[], tuple[list[float], list[float]]]] = {"ours": mine, "trl": trls}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for name, run in sides.items():
            took, losses[name] = run()
            seconds[name].append(statistics.median(took))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    apart = max(abs(a - b) for a, b in zip(losses["ours"], losses["trl"], strict=True))
    print(f"{args.batch} pairs a step, width {args.width}, {args.layers} layers, "
          f"{args.threads} threads")  # fmt: skip
    for name, found in medians.items():
        print(f"  {name:5} {1e3 * found:8.1f} ms a step")
    print(f"  trl's step takes {medians['trl'] / medians['ours']:.2f} times ours")
    print(f"  losses of the {args.steps} steps differ by {apart:.1e} at most")
    return 0 if apart < 1e-2 and medians["ours"] <= medians["trl"] else 1


if __name__ == "__main__":
    sys.exit(main())
