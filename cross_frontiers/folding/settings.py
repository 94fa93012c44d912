"""Settings of the families and of the network, apart from the code that needs torch."""

from __future__ import annotations

from dataclasses import dataclass

from labkit import UsageError
from labkit.config.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass
class FamilySettings:
    """The families that are made."""

    folds: PositiveInt = 4000
    """Folds; each is in one split."""
    per_fold: PositiveInt = 2
    """Families of each fold, with other preferences and couplings."""
    length: PositiveInt = 48
    """Columns."""
    rows: PositiveInt = 64
    """Rows of each alignment."""
    coupling: PositiveFloat = 1.0
    """Strength of the couplings."""
    preference: NonNegativeFloat = 0.7
    """Standard deviation of the preferences h."""
    clades: PositiveInt = 8
    """Ancestors of each family's rows."""
    sweeps: PositiveInt = 6
    """Gibbs sweeps for the ancestors; half as many from an ancestor to its rows."""
    gaps: Share = 0.03
    """Share of letters that are replaced by a gap."""

    def check(self) -> None:
        """Raises UsageError for alignments in which no contact can be found."""
        if self.length < 8:
            raise UsageError(
                f"families.length={self.length} is too short for contacts; try families.length=32"
            )
        if self.rows < 2:
            raise UsageError(
                f"families.rows={self.rows}: contacts show in how columns vary together, so an "
                "alignment needs at least two rows; try families.rows=48"
            )


@dataclass
class EvoformerSettings:
    """The network."""

    blocks: PositiveInt = 4
    """Blocks of the Evoformer."""
    width: PositiveInt = 64
    """Channels of the alignment."""
    pair_width: PositiveInt = 64
    """Channels of the pairs."""
    heads: PositiveInt = 4
    """Attention heads everywhere."""
    hidden: PositiveInt = 16
    """Channels of each side of the outer product."""
    reach: PositiveInt = 32
    """Residues up to which the distance in the chain is told exactly."""

    def check(self) -> None:
        """Raises UsageError if the heads do not divide the channels."""
        for name in ("width", "pair_width"):
            if getattr(self, name) % self.heads:
                raise UsageError(
                    f"net.{name}={getattr(self, name)} is no multiple of net.heads={self.heads}; "
                    f"try net.{name}={self.heads * max(1, round(getattr(self, name) / self.heads))}"
                )
