"""What the run measures at its end, on questions that it has never seen.

exact_match            arithmetic questions answered exactly, with the real calculator (%)
valid_exact_match      the same on validation questions: settings are chosen by this one (%)
lookup_match           questions of two hops over the encyclopedia (%)
chain_match_n          questions about n towns (%)
valid_calls            steps with a well-formed call, over all of these (%)
unfinished             traces without an answer, at the step limit or for want of room (%)
free_valid_calls       the same without the grammar, free_match the answers (%)
invented               traces, also those without the grammar, in which the model wrote an
                       observation itself (%)
contaminated           test questions that share an n-gram of 13 words with a training question,
                       or are part of one (%)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from agents import evaluate
from agents.contamination import contaminated
from agents.figures import against_length, bars
from agents.policy import LocalPolicy
from agents.questions import Task
from agents.react import Trace, write_traces
from agents.show import page
from agents.toolset import toolbox
from labkit import Run
from labkit.files import write_text

SHOWN = 12
"""Traces on the page, of each kind."""
MEMORY_BUDGET = 420
"""Characters that the scripted agent is shown in the study of memories."""
STUDIED = (1, 2, 3, 4, 6, 8)
"""Towns in the questions of that study."""


def report(
    run: Run, policy: LocalPolicy, free: LocalPolicy, training: Sequence[Task], count: int,
    lengths: Sequence[int], seen: int, limit: int,
) -> dict[str, float]:  # fmt: skip
    """The run's metrics; writes traces.jsonl, a page of traces, and two figures.

    `free` is the same model without the grammar; `seen` the longest chain of the training.
    """
    test, valid = evaluate.exam("test", count, lengths), evaluate.exam("valid", count, ())
    box = toolbox(test.pages)
    metrics, traces = {}, []
    sums, found = evaluate.answered(policy, box, test.arithmetic, limit)
    metrics["exact_match"], shown = sums, list(islice(found, SHOWN))
    traces += found
    score, _ = evaluate.answered(policy, box, valid.arithmetic, limit)
    metrics["valid_exact_match"] = score
    metrics["lookup_match"], found = evaluate.answered(policy, box, test.lookup, limit)
    traces, shown = traces + found, shown + found[:SHOWN]
    chains = []
    for length, tasks in test.chains.items():
        metrics[f"chain_match_{length}"], found = evaluate.answered(policy, box, tasks, limit)
        chains.append(metrics[f"chain_match_{length}"])
        traces, shown = traces + found, shown + found[:2]
    metrics["valid_calls"] = evaluate.valid_calls(traces)
    metrics["unfinished"] = evaluate.unfinished(traces)
    score, found = evaluate.answered(free, box, test.arithmetic, limit)
    metrics |= {"free_match": score, "free_valid_calls": evaluate.valid_calls(found)}
    metrics["invented"] = evaluate.invented(traces + found)
    metrics |= evaluate.shifted(policy, count, limit)
    metrics |= evaluate.injected(policy, test, limit)
    metrics |= evaluate.flaky(policy, test, limit, run.seed)
    asked = [task.question for task in (*test.arithmetic, *test.lookup)]
    metrics["contaminated"] = 100 * float(
        np.mean(contaminated(asked, (task.question for task in training)))
    )
    draw(run, traces, shown, metrics, lengths, chains, seen)
    return metrics


def draw(
    run: Run, traces: list[Trace], shown: list[Trace], metrics: dict[str, float],
    lengths: Sequence[int], chains: list[float], seen: int,
) -> None:  # fmt: skip
    """Files and figures."""
    if run.writes:
        folder = run.dir / "samples"
        write_traces(folder / "traces.jsonl", traces)
        write_text(folder / "traces.html", page(shown, "Traces of the trained agent"))
    title = "Success against length"
    run.figure("length", against_length(lengths, {"trained agent": chains}, seen, title))
    names = {
        "exact_match": "arithmetic", "lookup_match": "two hops",
        "free_match": "arithmetic, no grammar", "other_wording_match": "other wording",
        "larger_numbers_match": "larger numbers", "injected_match": "injected pages",
        "flaky_match": "flaky tools", "flaky_retry_match": "flaky tools, retried",
    }  # fmt: skip
    run.figure("situations", bars({names[k]: metrics[k] for k in names}, "The same agent"))
    run.plot("training", "train/loss", logy=True)
    study = evaluate.exam("test", 20, STUDIED)
    success = evaluate.memory_study(study, limit=2 * max(STUDIED), budget=MEMORY_BUDGET)
    title = f"A scripted agent that is shown {MEMORY_BUDGET} characters"
    run.figure("memory", against_length(STUDIED, success, 0, title))
