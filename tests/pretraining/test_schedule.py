"""Learning rates at the places where they are known, and beside Hugging Face's."""

import cmath
import math

import pytest
import torch

from pretraining import cosine, warmup_stable_decay


@pytest.mark.exercise("schedule.cosine")
def test_cosine_at_its_landmarks() -> None:
    assert [cosine(step, 100, 4) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1])
    assert cosine(4, 100, 4) == pytest.approx(1)
    assert cosine(52, 100, 4) == pytest.approx(0.55)  # half way between 1 and a tenth
    assert cosine(28, 100, 4) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert cosine(100, 100, 4) == pytest.approx(0.1)
    assert cosine(100, 100, 4, floor=0.0) == pytest.approx(0)
    assert cosine(0, 10, 0) == pytest.approx(1)


@pytest.mark.exercise("schedule.cosine")
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (7, 0), (10, 3), (40, 39)])
def test_cosine_rises_in_equal_parts_and_falls_as_half_a_wave(
    steps: int, warmup: int, floor: float
) -> None:
    """The wave is the real part of e^iπp, on a circle with the middle between 1 and the floor."""
    found = [cosine(step, steps, warmup, floor) for step in range(steps)]
    rise = [(i + 1) / warmup for i in range(warmup)]
    wave = [cmath.exp(1j * math.pi * i / (steps - warmup)).real for i in range(steps - warmup)]
    fall = [(1 + floor) / 2 + (1 - floor) / 2 * w for w in wave]
    assert found == pytest.approx(rise + fall)
    default = [cosine(step, steps, warmup) for step in range(steps)]
    assert default == [cosine(step, steps, warmup, 0.1) for step in range(steps)]


@pytest.mark.exercise("schedule.cosine")
def test_cosine_is_hugging_faces_after_the_warm_up() -> None:
    from transformers import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, 5, 50).lr_lambdas[0]
    for step in range(5, 50):
        assert cosine(step, 50, 5, floor=0.0) == pytest.approx(theirs(step))


@pytest.mark.exercise("schedule.warmup_stable_decay")
def test_warmup_stable_decay_step_by_step() -> None:
    factors = [warmup_stable_decay(step, 10, 2, 4) for step in range(10)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.exercise("schedule.warmup_stable_decay")
@pytest.mark.parametrize(
    ("steps", "warmup", "decay"),
    [(1, 0, 0), (1, 1, 1), (6, 0, 3), (6, 3, 0), (6, 1, 1), (9, 4, 5), (9, 6, 7), (5, 5, 5)],
)
def test_warmup_and_decay_in_equal_parts(steps: int, warmup: int, decay: int) -> None:
    """A list of what warm-up and decay ask for, each written from its own end."""
    rise = [(i + 1) / warmup for i in range(warmup)] + [1.0] * (steps - warmup)
    fall = ([(i + 1) / decay for i in range(decay)] + [1.0] * (steps - decay))[::-1]
    found = [warmup_stable_decay(step, steps, warmup, decay) for step in range(steps)]
    assert found == pytest.approx([min(both) for both in zip(rise, fall, strict=True)])


@pytest.mark.exercise("schedule.warmup_stable_decay")
def test_warmup_and_decay_may_be_left_out_or_meet() -> None:
    assert [warmup_stable_decay(step, 3, 0, 0) for step in range(3)] == [1, 1, 1]
    assert [warmup_stable_decay(step, 4, 0, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
    both = [warmup_stable_decay(step, 4, 4, 4) for step in range(4)]
    assert both == pytest.approx([0.25, 0.5, 0.5, 0.25])


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_no_step_is_wasted(steps: int) -> None:
    for step in range(steps):
        assert 0 < warmup_stable_decay(step, steps, round(0.1 * steps), round(0.5 * steps)) <= 1
        assert 0 < cosine(step, steps, round(0.1 * steps)) <= 1
