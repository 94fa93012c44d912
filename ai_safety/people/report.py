"""The end of a run: held-out comparisons with simple rules beside them, and XSTest twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ai_safety.evaluate import Share
from ai_safety.people import figures
from ai_safety.people.comparisons import Encoded
from ai_safety.people.judged import longer_accuracy, on_xstest, ordered, words_accuracy
from ai_safety.people.pairs import Sources
from labkit import Run
from pretraining import GPT, export
from rlhf import (
    Pair,
    RewardModel,
    Rows,
    answer_logps,
    in_batches,
    respond,
    table,
    texts_of,
    token_logps,
)

SHOWN = 20
"""Held-out dialogues whose answers are written to samples/answers.txt, if they are wanted."""


def margins(
    model: GPT, judge: RewardModel | None, start: GPT, pairs: Sequence[Pair], device: Any
) -> Share:
    """How often the preferred answer is ahead: by reward, or by DPO's implied reward.

    The latter is the log-ratio to the start (Rafailov et al. 2023, equation 5).
    """
    rows = table(pairs, device)
    if judge is not None:
        values = in_batches(judge, judge, rows, 64)
    else:
        known = [in_batches(m, partial(answer_logps, m), rows, 64) for m in (model, start)]
        values = known[0] - known[1]
    return ordered(values[:, 0] - values[:, 1])


def answer_nll(model: GPT, pairs: Sequence[Pair], device: Any) -> float:
    """Mean negative log-likelihood of a token of the preferred answers, in nats."""
    rows = table(pairs, device)
    chosen = Rows(*(part[:, 0] for part in rows))

    def sums(part: Rows) -> Tensor:
        return token_logps(model, part).sum(dim=1)

    total = in_batches(model, sums, chosen, 64).sum()
    return (-total / chosen.mask.sum()).item()


def report(
    run: Run,
    model: GPT,
    judge: RewardModel | None,
    start: GPT,
    tokenizer: Any,
    sources: Sources,
    answer: int,
    texts: bool,
) -> dict[str, float]:
    """Metrics of the reward model, or of the policy beside its start."""
    metrics: dict[str, float] = {}
    for number, (source, test) in enumerate(sources.test.items()):
        share = margins(model, judge, start, test.pairs, run.device)
        name = "" if number == 0 else "more_" if number == 1 else f"more{number}_"
        metrics |= {
            f"{name}accuracy": share.percent,
            f"{name}accuracy_low": share.interval[0],
            f"{name}longer_accuracy": longer_accuracy(test.rows),
            f"{name}words_accuracy": words_accuracy(sources.train.rows, test.rows),
        }
        run.note(**{f"{name}source": source, f"{name}tested": share.cases})
    run.note(trained=len(sources.train.rows))
    if judge is None:
        first = next(iter(sources.test.values()))
        metrics |= {
            f"{name}nll": answer_nll(each, first.pairs, run.device)
            for name, each in (("start_", start), ("", model))
        }
        answer = min(answer, model.shape.context // 2)
        metrics |= both_on_xstest(run, start, model, tokenizer, answer)
        if texts and run.writes:
            write_answers(run, {"start": start, "tuned": model}, tokenizer, first, answer)
        if run.writes:
            export(model, tokenizer, run.dir / "policy")
    return metrics


def both_on_xstest(
    run: Run, start: GPT, model: GPT, tokenizer: Any, answer: int
) -> dict[str, float]:
    """XSTest before and after the comparisons, on both axes; nothing without the set."""
    found = {name: on_xstest(m, tokenizer, answer) for name, m in (("start_", start), ("", model))}
    if not found[""]:
        return {}
    if "unsafe" in found[""]:
        shown = {"start": found["start_"], "tuned": found[""]}
        run.figure("xstest", figures.both_axes(shown))
    metrics: dict[str, float] = {}
    for name, shares in found.items():
        for kind, share in shares.items():
            metrics[f"{name}{kind}_refused"] = share.percent
            if not kind.startswith("keyword"):
                for end, value in zip(("low", "high"), share.interval, strict=True):
                    metrics[f"{name}{kind}_{end}"] = value
    return metrics


def write_answers(
    run: Run, models: dict[str, GPT], tokenizer: Any, test: Encoded, answer: int
) -> None:
    """samples/answers.txt: dialogues with the answers of each model."""
    prompts = [pair.prompt for pair in test.pairs[:SHOWN]]
    end = tokenizer.eos_token_id
    said = {
        name: texts_of(respond(each, prompts, answer, end, temperature=0.0), tokenizer, end)
        for name, each in models.items()
    }
    lines = []
    for number, prompt in enumerate(prompts):
        lines.append(tokenizer.decode(prompt).strip())
        lines += [f"    {name:6} {answers[number][0]}" for name, answers in said.items()]
    (run.dir / "samples").mkdir(exist_ok=True)
    (run.dir / "samples" / "answers.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
