"""The one-cycle schedule at its boundaries: every total from 1 step on, every share of the rise."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from pytorch_mastery import one_cycle

TOTALS = (*range(1, 41), 49, 100)


def by_definition(step: int, total: int, peak: float, rise: Fraction) -> float:
    """In exact fractions: which leg the step is on, and how far along it."""
    top, last = rise * total - 1, Fraction(total - 1)
    if top > 0 and step <= top:
        a, b, progress = peak / 25, peak, Fraction(step) / top
    elif top < last:
        a, b, progress = peak, peak / 25e4, (step - top) / (last - top)
    else:
        a, b, progress = peak, peak / 25e4, Fraction(0)
    cosine = math.cos(math.pi * float(progress))
    return (a + b) / 2 + (a - b) / 2 * cosine


@pytest.mark.exercise("schedule.one_cycle")
@pytest.mark.parametrize("total", TOTALS)
def test_every_step_of_every_length_is_as_defined(total: int) -> None:
    """A rise of exactly one step (rise * total = 1) divided by zero; so did a run of one step."""
    shares = {Fraction(n, 20) for n in range(21)} | {Fraction(n, total) for n in range(total + 1)}
    for rise in shares:
        for step in range(total):
            rate = one_cycle(step, total, 3.0, float(rise))
            assert rate == pytest.approx(by_definition(step, total, 3.0, rise), rel=1e-6), (
                rise, step
            )  # fmt: skip
            assert 3.0 / 25e4 * (1 - 1e-12) <= rate <= 3.0 * (1 + 1e-12)


@pytest.mark.exercise("schedule.one_cycle")
@pytest.mark.parametrize("total", TOTALS[2:])
def test_where_torch_is_defined_it_agrees(total: int) -> None:
    """torch.optim.lr_scheduler.OneCycleLR divides by zero where the rise takes just one step."""
    for rise in (0.05, 0.1, 0.25, 0.3, 0.5, 0.9):
        if Fraction(str(rise)) * total == 1:
            continue
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total, pct_start=rise)
        for step in range(total):
            rate = optimizer.param_groups[0]["lr"]
            assert one_cycle(step, total, 0.1, rise) == pytest.approx(rate, rel=1e-6), (rise, step)
            optimizer.step()
            if step < total - 1:
                theirs.step()


def test_the_lengths_that_failed() -> None:
    assert one_cycle(0, 20, 1.0, rise=0.05) == 1.0, "diffusion.train steps=20"
    assert one_cycle(0, 10, 1.0, rise=0.1) == 1.0, "representation_learning.train steps=10"
    assert one_cycle(0, 1, 1.0, rise=1.0) == 1.0
    assert one_cycle(0, 1, 1.0) == pytest.approx(1 / 25e4), "the last step ends the descent"
