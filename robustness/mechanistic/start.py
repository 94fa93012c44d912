"""Makes what a run trains, and names its data for the record."""

from __future__ import annotations

import hashlib

from labkit import Run
from robustness.mechanistic import sources
from robustness.mechanistic.jobs import Induction, Job, Sparse, Superposition
from robustness.mechanistic.patterns import TEST
from robustness.mechanistic.settings import InductionSettings, SAESettings, SuperpositionSettings


def begin(settings: InductionSettings | SuperpositionSettings | SAESettings, run: Run) -> Job:
    """The job of a method's settings.

    Raises UsageError for a language model that cannot be had, or a layer that it lacks.
    """
    if isinstance(settings, InductionSettings):
        patterns = Induction(settings, run.seed, run.device)
        tokens, _ = patterns.rows(settings.tests, TEST, run.seed)[-1]
        digest = hashlib.sha256(tokens.cpu().numpy().tobytes()).hexdigest()
        run.generated("patterns", {"test": settings.tests}, digest)
        return patterns
    if isinstance(settings, SuperpositionSettings):
        digest = hashlib.sha256(str(vars(settings)).encode()).hexdigest()
        run.generated("features", {}, digest)
        return Superposition(settings, run.seed, run.device)
    source: sources.Source
    if settings.source == "toy":
        source = sources.ToySource(settings, run.seed, run.device)
        test = source.batch(settings.tests, TEST, run.seed)
        digest = hashlib.sha256(test.cpu().numpy().tobytes()).hexdigest()
        run.generated("toy", {"test": settings.tests}, digest)
    else:
        reader = sources.reader_of(settings, run)
        source = sources.TextSource(reader, settings.layer, settings.tokens)
    return Sparse(settings, source, run.seed, run.device)
