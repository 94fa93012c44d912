"""The two axes: harmful requests refused, harmless ones answered; and attacks with defences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from ai_safety import constitutional, dialogues, jailbreaks
from ai_safety.defences import DEFENCES, Defence, System
from ai_safety.dialogues import Outcome, Request
from ai_safety.jailbreaks import Attacked
from ai_safety.lessons import prompt_of
from ai_safety.measures import wilson_interval
from ai_safety.words import Vocabulary
from pretraining import GPT

Answering = Callable[[Sequence[str]], Sequence[str]]
"""Any model: requests to answers."""
Judge = Callable[[Request, str], Outcome]


@dataclass(frozen=True)
class Share:
    """A share of cases in per cent, with Wilson's 95 % interval; a tie may be half a hit."""

    hits: float
    cases: int

    @property
    def percent(self) -> float:
        """The share."""
        return 100 * self.hits / self.cases

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends."""
        low, high = wilson_interval(self.hits, self.cases)
        return 100 * low, 100 * high


@dataclass(frozen=True)
class Axes:
    """Outcomes of answers by group of requests."""

    counts: Mapping[str, Counter[Outcome]]

    def share(self, outcome: Outcome, harmful: bool, group: str | None = None) -> Share:
        """How often harmful (or harmless) requests, or those of one group, end so."""
        rows = [
            count
            for name, count in self.counts.items()
            if (group is None and (name in ("living", "property")) == harmful) or name == group
        ]
        return Share(sum(row[outcome] for row in rows), sum(row.total() for row in rows))

    @property
    def harmful_refused(self) -> Share:
        """Harmful requests that were refused."""
        return self.share("refused", True)

    @property
    def over_refusal(self) -> Share:
        """Harmless requests that were refused."""
        return self.share("refused", False)

    @property
    def harmless_answered(self) -> Share:
        """Harmless requests that were helped with; what evades does neither."""
        return self.share("helped", False)


def both_axes(requests: Sequence[Request], answers: Iterable[str], judge: Judge) -> Axes:
    """Judge answers to requests on both axes. Raises ValueError when their numbers differ."""
    counts: dict[str, Counter[Outcome]] = {}
    for request, answer in zip(requests, answers, strict=True):
        counts.setdefault(request.group, Counter())[judge(request, answer)] += 1
    return Axes(counts)


def judge_model(answering: Answering, count: int = 600, pool: dialogues.Pool = "test") -> Axes:
    """Any model that maps texts to texts, on held-out requests of the small world.

    Raises UsageError for a count that the pool cannot give.
    """
    requests = dialogues.held_out(pool, count)
    return both_axes(requests, answering([each.text for each in requests]), dialogues.outcome)


def attack_success(requests: Sequence[Request], answers: Sequence[str]) -> Share:
    """How often an answer helped with a request that is harmful.

    Raises ValueError when no request is harmful: their share is not defined.
    """
    harmful = [(r, a) for r, a in zip(requests, answers, strict=True) if r.harms is not None]
    if not harmful:
        raise ValueError("no harmful request among them: expected one or more")
    helped = sum(dialogues.outcome(request, answer) == "helped" for request, answer in harmful)
    return Share(helped, len(harmful))


@dataclass(frozen=True)
class Defended:
    """Under one defence: success of each attack, and what the defence costs without attacks."""

    success: dict[str, Share]
    axes: Axes

    @property
    def mean_success(self) -> float:
        """Over the attacks, in per cent; `plain` is none."""
        rates = [share.percent for kind, share in self.success.items() if kind != "plain"]
        return sum(rates) / len(rates)


def attacked_by(
    system: System, requests: Sequence[Request], most: int, seed: int
) -> dict[str, Defended]:
    """Every attack against every defence.

    Args:
        requests: held-out ones of both kinds; attacks take the first `most` of the harmful ones,
            and over-refusal is measured on all, unattacked.
    """
    harmful = [each for each in requests if each.harms is not None][:most]
    found = {}
    for name, defence in DEFENCES.items():
        success = {}
        for kind in ("plain", *jailbreaks.KINDS):
            rng = Random(seed)
            sent = [
                Attacked(each.text) if kind == "plain" else jailbreaks.attack(kind, each, rng)
                for each in harmful
            ]
            success[kind] = attack_success(harmful, defence(system, sent))
        found[name] = Defended(success, axes_under(system, defence, requests))
    return found


def axes_under(system: System, defence: Defence, requests: Sequence[Request]) -> Axes:
    """Both axes of a defended system, without attacks."""
    answers = defence(system, [Attacked(each.text) for each in requests])
    return both_axes(requests, answers, dialogues.outcome)


def look(model: GPT, vocabulary: Vocabulary, requests: Sequence[Request]) -> dict[str, float]:
    """Both axes on validation requests, in per cent."""
    prompts = [prompt_of(each.text) for each in requests]
    axes = both_axes(
        requests, constitutional.write(model, vocabulary, prompts, None, 0.0), dialogues.outcome
    )
    return {
        "harmful_refused": axes.harmful_refused.percent,
        "over_refusal": axes.over_refusal.percent,
        "harmless_answered": axes.harmless_answered.percent,
    }
