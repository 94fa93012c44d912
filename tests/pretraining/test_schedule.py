"""Learning rates at the places where they are known, and beside Hugging Face's."""

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
