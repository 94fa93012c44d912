"""Reward hacking and critique against closed forms, enumeration and libraries."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from ai_safety.questions import critique, debate, reward_hacking
from ai_safety.questions.critique import claim_log_odds
from ai_safety.questions.reward_hacking import best_of_n_policy, kl, optimal_policy


def reference(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    logps = (1.5 * torch.randn(count, dtype=torch.float64)).log_softmax(dim=0)
    return logps, torch.randn(count, dtype=torch.float64)


@pytest.mark.exercise("questions.reward_hacking.optimal_policy")
@pytest.mark.parametrize("budget", [0.05, 0.4, 1.0])
def test_no_policy_within_the_budget_earns_more(budget: float) -> None:
    """An optimiser that knows nothing of the closed form finds the same policy."""
    logps, reward = reference(5, 1)
    kept = logps.clone(), reward.clone()
    found = optimal_policy(logps, reward, budget)
    p0, r = logps.exp().numpy(), reward.numpy()

    def left(p: np.ndarray) -> float:
        return budget - float((p * np.log(p / p0)).sum())

    best = minimize(
        lambda p: -(p @ r), p0, jac=lambda p: -r, method="SLSQP", bounds=[(1e-12, 1)] * 5,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "ineq", "fun": left},
        ], options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert found.tolist() == pytest.approx(best.x.tolist(), abs=2e-4)
    assert (found @ reward).item() == pytest.approx(-best.fun, abs=1e-5)
    assert kl(found, logps) == pytest.approx(budget, abs=1e-6)
    assert found.sum().item() == pytest.approx(1)
    assert torch.equal(logps, kept[0])
    assert torch.equal(reward, kept[1])


@pytest.mark.exercise("questions.reward_hacking.optimal_policy")
def test_two_answers_by_hand() -> None:
    """The KL of (q, 1 - q) to a half each: the root of one equation, found by another bisection."""
    low, high = 0.5, 1.0
    for _ in range(80):
        q = (low + high) / 2
        spent = q * math.log(2 * q) + (1 - q) * math.log(2 * (1 - q))
        low, high = (q, high) if spent < 0.3 else (low, q)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    for scale in (1e-4, 1.0, 1e4):  # the unit of a reward does not matter
        found = optimal_policy(half, torch.tensor([7.0, 7.0 + scale], dtype=torch.float64), 0.3)
        assert found.tolist() == pytest.approx([1 - low, low], abs=1e-5)


@pytest.mark.exercise("questions.reward_hacking.optimal_policy")
def test_the_budget_is_used_up_where_the_best_answer_is_likely_already() -> None:
    """Its KL rises slowly; that of the opposite policy, which likes the other answer, fast."""
    logps = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    reward = torch.tensor([0.5, 0.0], dtype=torch.float64)
    found = optimal_policy(logps, reward, 0.09)
    assert kl(found, logps) == pytest.approx(0.09, abs=1e-6)
    assert found[0] > 0.9


@pytest.mark.exercise("questions.reward_hacking.optimal_policy")
def test_budgets_at_their_ends() -> None:
    logps, _ = reference(4, 2)
    reward = torch.tensor([0.3, 2.0, -1.0, 2.0], dtype=torch.float64)  # two are best
    assert torch.allclose(optimal_policy(logps, reward, 0.0), logps.exp(), atol=1e-6)
    p = logps.exp()
    expected = torch.tensor([0.0, p[1], 0.0, p[3]]) / (p[1] + p[3])
    for budget in (50.0, -math.log(p[1] + p[3]) + 1e-9):
        assert torch.allclose(optimal_policy(logps, reward, budget), expected, atol=1e-6)
    same = optimal_policy(logps, torch.ones(4, dtype=torch.float64), 1.0)
    assert torch.allclose(same, p)
    assert same.dtype == torch.float64
    with pytest.raises(ValueError, match=r"-0\.1"):
        optimal_policy(logps, reward, -0.1)


def test_the_best_of_n_by_drawing_every_group() -> None:
    p = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    reward = torch.tensor([2.0, 1.0, 2.0, -1.0], dtype=torch.float64)  # a tie
    for n in (1, 2, 4):
        expected = [0.0] * 4
        for group in itertools.product(range(4), repeat=n):
            weight = math.prod(p[i].item() for i in group)
            top = max(reward[i].item() for i in group)
            winners = [i for i in group if reward[i] == top]
            for i in winners:
                expected[i] += weight / len(winners)
        assert best_of_n_policy(p.log(), reward, n).tolist() == pytest.approx(expected)
    world = reward_hacking.world(2, 3)
    many = best_of_n_policy(world.logps, world.gold, 2**14)
    assert many.sum().item() == pytest.approx(1)
    assert kl(many, world.logps) <= math.log(2**14) - 1 + 2**-14 + 1e-9  # Stiennon et al. 2020


def test_the_world_lists_every_answer() -> None:
    world = reward_hacking.world(2, 3)
    assert len(set(map(tuple, world.answers.tolist()))) == 32
    assert world.logps.exp().sum().item() == pytest.approx(1)
    row = world.answers.tolist().index([1.0, 0.0, 1.0, 1.0, 0.0])
    chance = 0.25 * reward_hacking.RARE**2 * (1 - reward_hacking.RARE)
    assert world.logps[row].exp().item() == pytest.approx(chance)
    assert world.gold[row].item() == pytest.approx(0.2 + 2 * 1.0 - 4 * 0.25)


def test_people_prefer_by_gold_rewards() -> None:
    world = reward_hacking.world(1, 1)  # four answers
    generator = torch.Generator().manual_seed(0)
    even = torch.full((4,), 0.25, dtype=torch.float64)
    pairs = reward_hacking.comparisons(world, even, 40_000, generator)
    counted = Counter(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    for one, two in itertools.combinations(range(4), 2):
        wins, losses = counted[one, two], counted[two, one]
        expected = torch.sigmoid(world.gold[one] - world.gold[two]).item()
        assert wins / (wins + losses) == pytest.approx(expected, abs=0.03)


def test_members_of_an_ensemble_are_apart() -> None:
    torch.manual_seed(0)
    model = reward_hacking.Ensemble(3, 4, 5)
    x = torch.randn(3, 7, 4)
    for k in range(3):
        hidden = (x[k] @ model.into[k] + model.bias[k]).clamp(min=0)
        assert torch.allclose(model(x)[k], (hidden @ model.out[k])[:, 0], atol=1e-6)
    assert torch.allclose(model(x[0])[2], model(x[0].expand(3, -1, -1))[2], atol=1e-6)


def test_standard_rewards_have_mean_and_deviation_of_the_reference() -> None:
    logps, reward = reference(9, 3)
    found = reward_hacking.standardised(reward, logps)
    assert (found @ logps.exp()).item() == pytest.approx(0, abs=1e-12)
    assert (found**2 @ logps.exp()).item() == pytest.approx(1)


def test_an_alarm_is_scored_like_scikit_learn_does() -> None:
    logps, score = reference(60, 4)
    score = (2 * score).round()  # ties
    bad = torch.rand(60) < 0.3
    stream = logps.exp()
    at = reward_hacking.threshold(score, logps, 0.1)
    found = reward_hacking.alarm(score, bad, stream, at)
    expected = roc_auc_score(bad, score, sample_weight=stream)
    assert found.area == pytest.approx(expected)
    rows = list(zip(score.tolist(), bad.tolist(), stream.tolist(), strict=True))
    for hack, value in ((True, found.found), (False, found.false_alarms)):
        total = sum(p for _, b, p in rows if b == hack)
        assert value == pytest.approx(sum(p for s, b, p in rows if b == hack and s > at) / total)
    assert stream[score > at].sum() <= 0.1
    below = score[score < at].max() if (score < at).any() else at
    assert stream[score > below].sum() > 0.1  # a lower threshold would be too low
    for nothing in (torch.zeros(60).bool(), torch.ones(60).bool()):
        with pytest.raises(ValueError, match="expected some and not all"):
            reward_hacking.alarm(score, nothing, stream, at)


@pytest.mark.exercise("questions.critique.claim_log_odds")
def test_the_odds_of_a_claim_by_bayes_rule() -> None:
    """Every world is listed: the class, whether the claim is true, and which class is claimed."""
    torch.manual_seed(0)
    logits = 2 * torch.randn(20, 4, dtype=torch.float64)
    claim = torch.arange(20) % 4
    kept = logits.clone(), claim.clone()
    found = claim_log_odds(logits, claim)
    assert found.shape == (20,)
    for row in range(20):
        weights = {True: 0.0, False: 0.0}
        normal = sum(math.exp(x) for x in logits[row].tolist())
        for y, x in enumerate(logits[row].tolist()):
            for said in range(4):
                if said == claim[row]:
                    weights[y == said] += math.exp(x) / normal * (0.5 if y == said else 0.5 / 3)
        assert found[row].item() == pytest.approx(math.log(weights[True] / weights[False]))
    assert torch.equal(logits, kept[0])
    assert torch.equal(claim, kept[1])


@pytest.mark.exercise("questions.critique.claim_log_odds")
def test_the_odds_of_sure_judges_are_finite() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [200.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = claim_log_odds(logits, torch.tensor([0, 1, 2]))
    assert found.tolist() == pytest.approx([200.0, -200 + math.log(2), 0.0], abs=1e-3)
    two = claim_log_odds(torch.tensor([[1.5, -0.5]]), torch.tensor([1]))
    assert two.tolist() == pytest.approx([-2.0])


def test_places_cover_the_picture() -> None:
    found = critique.places(6, 4, 2)
    assert found.shape == (5 * 3, 24)
    assert found.sum(dim=1).tolist() == [4] * 15
    assert found.any(dim=0).all()
    assert found[0].nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert len(critique.places(28, 28, 7)) == 64


def test_half_of_the_claims_are_false() -> None:
    labels = torch.arange(4000) % 5
    claim, true = critique.claims(labels, 5, torch.Generator().manual_seed(0))
    assert ((claim == labels) == true).all()
    assert true.sum() == 2000
    shift = (claim - labels)[~true] % 5
    assert all(400 < (shift == k).sum() < 600 for k in (1, 2, 3, 4))


class Left(debate.Judge):
    """Believes class 1 as far as what it sees of the left pixel is bright, class 0 by the right."""

    def __init__(self) -> None:
        super().__init__(2, 1, 2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return seen[:, [1, 0]]


def test_critics_point_where_the_judge_is_moved() -> None:
    masks = torch.eye(2).bool()
    images = torch.tensor([[0.9, 0.2], [0.1, 0.8]])
    claim = torch.tensor([1, 1])  # log-odds at a place: left - right of what is shown
    own = torch.zeros(2, 2).bool()
    odds = critique.odds_by_place(Left(), images, claim, own, masks)
    assert odds.flatten().tolist() == pytest.approx([0.9, -0.2, 0.1, -0.8])
    both = critique.odds_by_place(Left(), images, claim, ~own, masks)
    assert both.flatten().tolist() == pytest.approx([0.7, 0.7, -0.7, -0.7])
    assert critique.point(odds, torch.tensor([True, False])).tolist() == [0, 1]
    assert critique.point(odds, torch.tensor([False, True])).tolist() == [1, 0]
    generator = torch.Generator().manual_seed(0)
    said = critique.verdicts(Left(), Left(), images, claim, masks, 0, generator)
    assert said["ceiling"].tolist() == [True, False]  # the critic sees both pixels
    assert said["critique"].tolist() == [True, False]
    assert said["misled"].tolist() == [False, True]


def test_a_judge_looks_at_as_many_places_as_it_may() -> None:
    masks = torch.eye(6).bool()
    seen = critique.looked_at(500, masks, 2, torch.Generator().manual_seed(0))
    counts = seen.sum(dim=1)
    assert set(counts.tolist()) == {1, 2}
    assert (counts == 1).double().mean().item() == pytest.approx(1 / 6, abs=0.06)
    assert not critique.looked_at(3, masks, 0, torch.Generator()).any()


def test_rates_are_of_each_kind_of_claim() -> None:
    true = torch.tensor([True, True, True, True, False])
    accepts = torch.tensor([True, True, True, False, True])
    assert critique.rates(accepts, true) == (0.6, 0.0, 0.25)
    for value in (True, False):
        with pytest.raises(ValueError, match="one kind only"):
            critique.rates(accepts, torch.full((5,), value))


def test_the_gain_is_paired() -> None:
    from scipy.stats import norm, ttest_rel

    torch.manual_seed(0)
    true = torch.rand(900) < 0.5
    first, second = true ^ (torch.rand(900) < 0.3), true ^ (torch.rand(900) < 0.2)
    mean, low, high = critique.gain_interval(first, second, true)
    t = ttest_rel((second == true).double(), (first == true).double()).statistic
    assert mean / ((high - low) / 2) * norm.ppf(0.975) == pytest.approx(t, rel=1e-3)
    assert low < mean < high
    assert critique.gain_interval(first, first, true) == (0.0, 0.0, 0.0)
