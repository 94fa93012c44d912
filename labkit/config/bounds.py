"""Bounds of settings, stated in their annotation: `lr: PositiveFloat = 3e-4`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from labkit.errors import UsageError


@dataclass(frozen=True)
class Bounds:
    """An interval of numbers; None means no bound on that side."""

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` is inside. NaN never is."""
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        """`> 0`, `0 or more`, `from 0 to below 1`."""
        if self.below is None and self.most is None:
            return f"> {self.above:g}" if self.least is None else f"{self.least:g} or more"
        end = f"below {self.below:g}" if self.most is None else f"{self.most:g}"
        if self.least is not None:
            return f"from {self.least:g} to {end}"
        return f"above {self.above:g} and {'up to ' if self.below is None else ''}{end}"


PositiveInt = Annotated[int, Bounds(above=0)]
PositiveFloat = Annotated[float, Bounds(above=0)]
NonNegativeInt = Annotated[int, Bounds(least=0)]
NonNegativeFloat = Annotated[float, Bounds(least=0)]
Share = Annotated[float, Bounds(least=0, below=1)]
"""A share less than the whole: from 0 to below 1."""
Fraction = Annotated[float, Bounds(least=0, most=1)]
"""From 0 to 1, both included."""


def bounds_of(annotation: Any) -> Bounds | None:
    """The bounds in an annotation, also inside a union; those of a list are for its items."""
    if get_origin(annotation) is Annotated:
        return next(
            (extra for extra in get_args(annotation)[1:] if isinstance(extra, Bounds)), None
        )
    found = (bounds_of(part) for part in get_args(annotation))
    return next((bounds for bounds in found if bounds is not None), None)


def check(name: str, value: Any, bounds: Bounds | None, default: Any) -> None:
    """Raises UsageError when a number, or one in a list, is outside its bounds."""
    for one in value if isinstance(value, list) else [value]:
        number = isinstance(one, (int, float)) and not isinstance(one, bool)
        if bounds is not None and number and not bounds.holds(one):
            raise UsageError(f"{name} must be {bounds}, got {one}; try {name}={default}")
