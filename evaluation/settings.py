"""What is measured and how; without heavy imports, since `--help` needs it at once."""

from dataclasses import dataclass, field

from labkit import UsageError
from labkit.config.bounds import PositiveInt
from labkit.text import closest

METRICS = (
    "fid", "fid_infinity", "kid", "precision_recall", "density_coverage", "inception_score",
    "two_sample", "memorisation",
)  # fmt: skip


@dataclass
class Measures:
    """Metrics and their settings."""

    metrics: list[str] = field(default_factory=lambda: list(METRICS))
    """What is measured: fid, fid_infinity, kid, precision_recall, density_coverage,
    inception_score, two_sample, memorisation."""
    k_precision: PositiveInt = 3
    """Neighbours of precision and recall."""
    k_coverage: PositiveInt = 5
    """Neighbours of density and coverage."""
    draws: PositiveInt = 3
    """Subsets of each size for FID-infinity."""
    resamples: PositiveInt = 100
    """Bootstrap resamples for the 95 % interval of the distance."""
    subset: PositiveInt = 1000
    """Samples in a subset of KID (all, where there are fewer)."""
    subsets: PositiveInt = 50
    """Subsets of KID."""

    def check(self, samples: int) -> None:
        """Raises UsageError for an unknown metric, and for more neighbours than other samples."""
        for name in self.metrics:
            if name not in METRICS:
                raise UsageError(
                    f"metrics: {name!r} is not known{closest(name, METRICS)} Known: "
                    f"{', '.join(METRICS)}"
                )
        for name, k in (("precision", self.k_precision), ("coverage", self.k_coverage)):
            if k >= samples:
                raise UsageError(
                    f"k_{name}={k}: so many neighbours need more than {k} images, and there are "
                    f"{samples}; try k_{name}=3"
                )
