"""The course: its weeks and electives, what each must reach, and what a record says about that.

    week("diffusion").bands                what the week must reach, per size and dataset
    week(10), week("10"), week("diff")     the same week
    load().weeks                           all of them, in order

Weeks and electives are both a `Unit`; `built` is true when the package exists.
"""

from labkit.course.bands import package_of, verdicts
from labkit.course.model import (
    SIZES,
    Band,
    Broken,
    Curriculum,
    Elective,
    Metric,
    Unit,
    Week,
)
from labkit.course.reader import load, packages, program, week

__all__ = [
    "SIZES",
    "Band",
    "Broken",
    "Curriculum",
    "Elective",
    "Metric",
    "Unit",
    "Week",
    "load",
    "package_of",
    "packages",
    "program",
    "verdicts",
    "week",
]
