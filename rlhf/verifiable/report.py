"""What GRPO changed: right answers before and after it, and whether the judge was deceived.

sum_accuracy       test sums answered rightly by greedy decoding, after GRPO (%)
start_accuracy     the same after the supervised start (%)
sampled_accuracy   right answers among those drawn at temperature 1, after GRPO (%)
judge_gap          mean reward of the same drawn answers in %, minus sampled_accuracy: more than 0
                   means that the judge accepts wrong answers, and that the model found out
"""

from __future__ import annotations

import numpy as np

from labkit import Run
from pretraining import GPT, generate
from rlhf.verifiable.arithmetic import END, Addition, Judge, score
from rlhf.verifiable.compute import training_flops
from rlhf.verifiable.evaluate import accuracy, right, sampled
from rlhf.verifiable.start import Start

DRAWS = 4
"""Answers drawn to each test sum."""
SHOWN = 20
"""Sums in samples/answers.txt."""


def report(
    run: Run,
    first: GPT,
    model: GPT,
    task: Addition,
    judge: Judge,
    pairs: np.ndarray,
    start: Start,
) -> dict[str, float]:
    """The run's metrics on the test sums `pairs` (P, 2); draws curves and writes answers.txt."""
    answers, _ = sampled(model, task, pairs, DRAWS)
    flat, each = answers.flatten(0, 1), pairs.repeat(DRAWS, axis=0)
    reward = score(judge, task.text(flat.numpy()), each)
    exact = 100 * right(task, each, flat).double().mean().item()
    if run.writes:
        folder = run.dir / "samples"
        folder.mkdir(exist_ok=True)
        text = transcript([first, model], task, judge, pairs[:SHOWN])
        (folder / "answers.txt").write_text(text, encoding="utf-8")
    run.plot("reward", "train/reward", "train/informative")
    run.plot("accuracy", "valid/accuracy")
    return {
        "sum_accuracy": 100 * accuracy(model, task, pairs),
        "start_accuracy": 100 * accuracy(first, task, pairs),
        "sampled_accuracy": exact,
        "judge_gap": 100 * reward.mean(dtype=np.float64).item() - exact,
        "start_flops": training_flops(model, start.tokens),
    }


def transcript(models: list[GPT], task: Addition, judge: Judge, pairs: np.ndarray) -> str:
    """Greedy answers of both models to some sums, with the judge's reward, in columns."""
    import torch

    prompt = torch.from_numpy(task.prompts(pairs))
    columns = []
    for model in models:
        tokens = prompt.to(model.embedding.weight.device)
        answer = generate(model, tokens, task.longest, temperature=0, end=END).cpu().numpy()
        said = task.text(answer)
        rewards = score(judge, said, pairs)
        columns.append([f"{text:8} {reward:g}" for text, reward in zip(said, rewards, strict=True)])
    expected = task.text(task.answers(pairs))
    lines = [f"{'sum':16} {'expected':10} {'start, reward':14} after GRPO, reward"]
    for (a, b), wanted, before, after in zip(pairs.tolist(), expected, *columns, strict=True):
        lines.append(f"{f'{a}+{b}':16} {wanted:10} {before:14} {after}")
    return "\n".join(lines) + "\n"
