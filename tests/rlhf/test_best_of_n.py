"""Best of n: by counting all groups, and against distributions that are known exactly."""

import itertools
import math
from collections import Counter

import pytest
import torch

from rlhf import best_of_n
from rlhf.evaluate import overoptimisation, win_rate


@pytest.mark.exercise("best_of_n.best_of_n_kl")
def test_bound_by_its_integral() -> None:
    """The best of n has density n u^(n-1) in the quantile u: KL = integral of it times its log."""
    for n in (1, 2, 3, 10, 64):
        steps = 200_000
        u = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        density = n * u ** (n - 1)
        expected = (density * density.clamp(min=1e-300).log()).mean().item()
        assert best_of_n.best_of_n_kl(n) == pytest.approx(expected, abs=1e-3)
    assert best_of_n.best_of_n_kl(1) == 0
    assert best_of_n.best_of_n_kl(4) == pytest.approx(0.6362943611)


@pytest.mark.exercise("best_of_n.best_of_n_kl")
@pytest.mark.parametrize("n", [0, -3])
def test_bound_needs_an_answer(n: int) -> None:
    with pytest.raises(ValueError):
        best_of_n.best_of_n_kl(n)


@pytest.mark.exercise("best_of_n.expected_best")
@pytest.mark.parametrize("n", [1, 2, 4, 6])
@pytest.mark.parametrize("prompts", [1, 3])
def test_mean_over_all_groups(n: int, prompts: int) -> None:
    g = torch.Generator().manual_seed(n)
    reward = torch.rand(prompts, 6, generator=g, dtype=torch.float64)
    value = torch.randn(prompts, 6, generator=g, dtype=torch.float64)
    kept = reward.clone(), value.clone()
    found = best_of_n.expected_best(reward, value, n)
    assert (found.shape, found.dtype) == ((prompts,), torch.float64)
    for row in range(prompts):
        best = [
            value[row, max(group, key=lambda i: reward[row, i].item())].item()
            for group in itertools.combinations(range(6), n)
        ]
        assert found[row].item() == pytest.approx(sum(best) / len(best))
    assert torch.equal(reward, kept[0])
    assert torch.equal(value, kept[1])


@pytest.mark.exercise("best_of_n.expected_best")
def test_of_equal_rewards_the_later_counts() -> None:
    reward = torch.tensor([[1.0, 1.0, 0.0]])
    value = torch.tensor([[10.0, 20.0, 30.0]])
    assert best_of_n.expected_best(reward, value, 3).tolist() == [20.0]
    assert best_of_n.expected_best(reward, value, 2).item() == pytest.approx((20 + 10 + 20) / 3)
    many = torch.arange(40.0).view(1, 40)
    assert best_of_n.expected_best(torch.zeros(1, 40), many, 40).tolist() == [39.0]


@pytest.mark.exercise("best_of_n.expected_best")
def test_numbers_of_groups_are_exact() -> None:
    """C(1100, 550) is beyond float64: only the shares are of ordinary size."""
    reward = torch.arange(1100, dtype=torch.float64).view(1, -1)
    found = best_of_n.expected_best(reward, reward, 550)
    assert found.item() == pytest.approx(550 * 1101 / 551 - 1)


@pytest.mark.exercise("best_of_n.expected_best")
@pytest.mark.parametrize("n", [0, 4, -1])
def test_more_than_there_are(n: int) -> None:
    with pytest.raises(ValueError):
        best_of_n.expected_best(torch.zeros(2, 3), torch.zeros(2, 3), n)


@pytest.mark.exercise("best_of_n.expected_best")
def test_values_on_other_devices() -> None:
    value = torch.zeros(2, 3, device="meta", dtype=torch.float64)
    assert best_of_n.expected_best(value, value, 2).device.type == "meta"


def test_measured_kl_by_all_tuples() -> None:
    """Five samples with ties: the best of every tuple of n, drawn with replacement."""
    row = [0.5, 0.1, 0.5, 0.9, 0.1]
    p = {r: count / 5 for r, count in Counter(row).items()}
    for n in (1, 2, 3):
        tuples = list(itertools.product(row, repeat=n))
        q = {r: c / len(tuples) for r, c in Counter(map(max, tuples)).items()}
        exact = sum(q[r] * math.log(q[r] / p[r]) for r in q)
        found = best_of_n.measured_kl(torch.tensor([row]), n).item()
        assert found == pytest.approx(exact)
        assert found <= best_of_n.best_of_n_kl(n) + 1e-12


def test_measured_kl_without_ties_is_the_bound() -> None:
    row = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    for n in (2, 8):
        found = best_of_n.measured_kl(row, n).item()
        assert found == pytest.approx(best_of_n.best_of_n_kl(n), abs=0.01)


def test_win_rate_and_overoptimisation() -> None:
    assert win_rate(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 5.0])) == 50
    assert win_rate(torch.tensor([1.0]), torch.tensor([0.0])) == 100
    assert overoptimisation([0.5, 2.0, 1.5]) == 0.5
    assert overoptimisation([0.5, 2.0]) == 0
