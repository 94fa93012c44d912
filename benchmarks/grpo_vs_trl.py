"""GRPO of week 16 against trl's GRPOTrainer: answers a second, drawn, judged and learned from.

    python benchmarks/grpo_vs_trl.py

Both train the same weights on the same questions, with the same judge, batch, group, learning rate
and one update for each batch of answers. Ours is the loop of rlhf/verifiable/train.py; trl has its
own loop, with the settings of +experiment=trl. A first step of each is not timed. They take turns,
and the best round of each counts: other programs can only make a round slower.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from pretraining import GPT, to_huggingface
from rlhf.verifiable import grpo
from rlhf.verifiable.arithmetic import Addition, find_judge
from rlhf.verifiable.rollout import Collector, token_logps
from rlhf.verifiable.settings import GRPOSettings, StartSettings
from rlhf.verifiable.start import make_model, supervised_start
from rlhf.verifiable.weights import tokenizer

DEVICE = torch.device("cpu")


def ours(model: GPT, task: Addition, settings: GRPOSettings, steps: int) -> tuple[float, float]:
    """Seconds for `steps` steps, and the mean reward in them."""
    judge = find_judge("strict", task.order)
    collector = Collector(task, judge, settings, task.pairs("train"), 0)
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=0.0, fused=True)
    begun, total = 0.0, 0.0
    for step in range(steps + 1):
        if step == 1:
            begun = time.perf_counter()
        batch, reward = collector.collect(model, step)
        logps = token_logps(model, batch.prompt, batch.answer, settings.group)
        loss = grpo.grpo_loss(logps, batch, settings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_norm)
        optimizer.step()
        total += reward.mean().item() * (step > 0)
    return time.perf_counter() - begun, total / steps


def theirs(model: GPT, task: Addition, settings: GRPOSettings, steps: int) -> tuple[float, float]:
    """The same by trl."""
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    from rlhf.verifiable.library import make_trainer

    pairs = task.pairs("train")
    rows = [{"prompt": f"{a}+{b}=", "a": a, "b": b} for a, b in pairs.tolist()]
    marks: dict[str, float] = {}

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                marks["begun"] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            marks["ended"] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(
            to_huggingface(model, tokenizer()), task, find_judge("strict", task.order), settings,
            steps + 1, Dataset.from_list(rows), DEVICE, folder, 0,
        )  # fmt: skip
        for noisy in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(noisy)
        trainer.add_callback(Clock())
        trainer.train()
    seen = [row["reward"] for row in trainer.state.log_history if "reward" in row][1:]
    return marks["ended"] - marks["begun"], sum(seen) / len(seen)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    task = Addition(2, "units_first", 6)
    settings = GRPOSettings(prompts=args.prompts, group=args.group, iterations=1)
    model = make_model(task, args.width, 2, 4, DEVICE)
    from contextlib import nullcontext

    supervised_start(model, task, StartSettings(accuracy=0.3), 0, nullcontext)
    answers = args.steps * args.prompts * args.group
    best: dict[str, float] = {}
    for round_ in range(args.rounds):
        for name, side in (("ours", ours), ("trl", theirs)):
            seconds, reward = side(copy.deepcopy(model), task, settings, args.steps)
            rate = answers / seconds
            best[name] = max(best.get(name, 0.0), rate)
            print(
                f"round {round_ + 1}  {name:5} {rate:9,.0f} answers a second, reward {reward:.2f}"
            )
    print(f"best   ours {best['ours']:,.0f}, trl {best['trl']:,.0f}: "
          f"{best['ours'] / best['trl']:.1f} times trl's rate")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
