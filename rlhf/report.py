"""The end of a run: its policy or reward model measured on held-out prompts, written, published."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from labkit import Run
from pretraining import GPT, export
from rlhf import figures, frontier
from rlhf.best_of_n import best_of_n_kl, expected_best, measured_kl
from rlhf.evaluate import Examiner, implicit_accuracy, overoptimisation, win_rate
from rlhf.preferences import Pair, Rows, answer_logps, in_batches, table
from rlhf.reward_model import RewardModel, pair_quality, rewards_of
from rlhf.sample import texts_of
from rlhf.start import GENERATED, save_reward

SAMPLES = 64
"""Answers drawn for each prompt to measure best-of-n, and the largest n."""
SHOWN = 20
"""Answers written to samples/answers.txt."""


def write_points(run: Run, method: str, points: Sequence[Mapping[str, float]]) -> None:
    """frontier.json, from which `python -m rlhf.frontier` draws all methods in one picture."""
    if run.is_main:
        text = json.dumps({"method": method, "points": list(points)})
        (run.dir / "frontier.json").write_text(text, encoding="utf-8")


def transcript(
    examiner: Examiner, prompts: Sequence[list[int]], answers: Mapping[str, Rows]
) -> str:
    """Prompts with the answers of each policy, and their score where there is a judge."""
    lines = []
    for number in range(min(SHOWN, len(prompts))):
        lines.append(examiner.tokenizer.decode(prompts[number]))
        for name, rows in answers.items():
            one = Rows(rows.tokens[number : number + 1], rows.mask[number : number + 1])
            (text, ended), *_ = texts_of(one, examiner.tokenizer, examiner.end)
            score = ""
            if examiner.data == GENERATED:
                score = f"{examiner.gold(prompts[number : number + 1], one).item():5.2f}  "
            lines.append(f"    {name:10} {score}{text}{'' if ended else ' ...'}")
    return "\n".join(lines) + "\n"


def policy_report(
    run: Run,
    method: str,
    policy: GPT,
    examiner: Examiner,
    pairs: Sequence[Pair],
    points: Sequence[dict[str, float]],
    texts: bool,
) -> dict[str, float]:
    """Metrics of a policy on held-out pairs and their prompts.

    Args:
        points: the looks at it during training.
        texts: whether answers to prompts that people wrote may be written down.
    """
    prompts = [pair.prompt for pair in pairs]
    seed = run.seed + 1_000_003  # no look during training used it
    rows = {
        "reference": examiner.answers(examiner.reference, prompts, seed),
        "policy": examiner.answers(policy, prompts, seed + 1),
    }
    found = examiner.judged(policy, prompts, rows["policy"])
    metrics = {"kl": found["kl"]}
    if method == "sft":
        metrics = {"nll": nll(policy, pairs, run.device)}
        metrics |= {"gold": found["gold"]} if "gold" in found else {}
    elif examiner.data == GENERATED:
        ours, theirs = (examiner.gold(prompts, rows[name]) for name in ("policy", "reference"))
        metrics |= {
            "gold": ours.mean().item(),
            "gold_gain": (ours.mean() - theirs.mean()).item(),
            "win_rate": win_rate(ours, theirs),
        }
        if points:
            metrics["overoptimisation"] = overoptimisation([point["gold"] for point in points])
    if examiner.reward is not None:
        before = in_batches(examiner.reward, examiner.reward, rows["reference"], 256).mean()
        metrics["proxy_gain"] = found["proxy"] - before.item()
    if method != "sft":
        metrics["accuracy"] = implicit_accuracy(policy, examiner.reference, pairs, run.device)
    if run.is_main and (texts or examiner.data == GENERATED):
        (run.dir / "samples").mkdir(exist_ok=True)
        file = run.dir / "samples" / "answers.txt"
        file.write_text(transcript(examiner, prompts, rows), encoding="utf-8")
    if method != "sft":  # whose KL is to a model that cannot speak yet
        write_points(run, method, points)
        run.figure("frontier", frontier.picture({method: points}))
    tokenizer = examiner.tokenizer
    if run.is_main:
        export(policy, tokenizer, run.dir / "policy")
    run.publish(lambda folder: export(policy, tokenizer, folder))
    return metrics


def nll(policy: GPT, pairs: Sequence[Pair], device: Any) -> float:
    """Negative log-likelihood of held-out answers of both kinds, in nats per token."""
    rows = table(pairs, device)
    logps = in_batches(policy, lambda part: answer_logps(policy, part), rows, 256)
    return -(logps.sum() / rows.mask.sum()).item()


def reward_report(
    run: Run,
    reward: RewardModel,
    examiner: Examiner,
    pairs: Sequence[Pair],
    others: Sequence[Pair],
    prompts: int,
) -> dict[str, float]:
    """Metrics of a reward model on held-out pairs, and of best-of-n by it on `prompts` prompts.

    Its probabilities are measured first; then it is standardised on the answers of `others`.
    """
    rewards = rewards_of(reward, pairs, run.device)
    metrics = pair_quality(rewards)
    margin = (rewards[:, 0] - rewards[:, 1]).cpu()
    run.figure(
        "calibration",
        figures.calibration(torch.sigmoid(margin.abs()).numpy(), (margin > 0).numpy()),
    )
    reward.standardise(rewards_of(reward, others, run.device))
    if examiner.data == GENERATED:
        right = (margin > 0)[hardest(examiner, pairs)]
        metrics["hard_accuracy"] = 100 * right.double().mean().item()
        metrics |= best_of(run, reward, examiner, [pair.prompt for pair in pairs[:prompts]])
    tokenizer = examiner.tokenizer
    if run.is_main:
        save_reward(reward, tokenizer, run.dir / "reward")
    run.publish(lambda folder: save_reward(reward, tokenizer, folder))
    return metrics


def hardest(examiner: Examiner, pairs: Sequence[Pair]) -> Tensor:
    """Numbers of the quarter of the pairs whose answers differ least in the judge's score."""
    rows = table(pairs)
    prompts = [pair.prompt for pair in pairs]
    sides = [
        examiner.gold(prompts, Rows(rows.tokens[:, side], rows.mask[:, side])) for side in (0, 1)
    ]
    return (sides[0] - sides[1]).argsort(stable=True)[: max(1, len(pairs) // 4)]


def best_of(
    run: Run, reward: RewardModel, examiner: Examiner, prompts: Sequence[list[int]]
) -> dict[str, float]:
    """Best-of-n by the reward model for n = 1, 2, 4, ..., SAMPLES: KL, proxy and gold.

    The metrics are those of the largest n: its KL as measured, which the bound must not be below.
    """
    many = [prompt for prompt in prompts for _ in range(SAMPLES)]
    rows = examiner.answers(examiner.reference, many, run.seed + 2_000_003)
    proxy = in_batches(reward, reward, rows, 256).double().cpu().view(-1, SAMPLES)
    gold = examiner.gold(many, rows).view(-1, SAMPLES)
    points = []
    for n in (2**k for k in range(SAMPLES.bit_length())):
        points.append({
            "n": float(n),
            "kl": best_of_n_kl(n),
            "measured_kl": measured_kl(proxy, n).mean().item(),
            "gold": expected_best(proxy, gold, n).mean().item(),
            "proxy": expected_best(proxy, proxy, n).mean().item(),
        })  # fmt: skip
    write_points(run, "best of n", points)
    run.figure("best_of_n", frontier.picture({}, points))
    return {
        "gold": points[-1]["gold"],
        "gold_gain": points[-1]["gold"] - points[0]["gold"],
        "kl": points[-1]["measured_kl"],
        "kl_bound": points[-1]["kl"],
        "overoptimisation": overoptimisation([point["gold"] for point in points]),
    }
