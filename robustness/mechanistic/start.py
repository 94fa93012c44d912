"""Makes what a run trains, and the report that belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from labkit import Run
from robustness.mechanistic import report, sources
from robustness.mechanistic.jobs import Induction, Job, Sparse, Superposition
from robustness.mechanistic.patterns import TEST
from robustness.mechanistic.settings import InductionSettings, SAESettings, SuperpositionSettings

Report = Callable[[], dict[str, float]]


def begin(
    method: str, settings: InductionSettings | SuperpositionSettings | SAESettings, run: Run
) -> tuple[Job, Report]:
    """The job, and a function that measures it at the end.

    Raises UsageError for a language model that cannot be had, or a layer that it lacks.
    """
    if isinstance(settings, InductionSettings):
        of_patterns = Induction(settings, run.seed, run.device)
        tokens = of_patterns.rows(settings.tests, TEST, run.seed)[0]
        digest = hashlib.sha256(tokens.cpu().numpy().tobytes()).hexdigest()
        run.generated("patterns", {"test": settings.tests}, digest)
        return of_patterns, lambda: report.report_induction(of_patterns, run)
    if isinstance(settings, SuperpositionSettings):
        grid = Superposition(settings, run.seed, run.device)
        run.generated("features", {}, hashlib.sha256(str(vars(settings)).encode()).hexdigest())
        return grid, lambda: report.report_superposition(grid, run)
    source: sources.Source
    if settings.source == "toy":
        source = sources.ToySource(settings, run.seed, run.device)
        test = source.batch(settings.tests, TEST, run.seed)
        digest = hashlib.sha256(test.cpu().numpy().tobytes()).hexdigest()
        run.generated("toy", {"test": settings.tests}, digest)
    else:
        reader = sources.reader_of(settings, run)
        source = sources.TextSource(reader, settings.layer, settings.tokens)
    sparse = Sparse(settings, source, run.seed, run.device)
    return sparse, lambda: report.report_sparse(sparse, run)
