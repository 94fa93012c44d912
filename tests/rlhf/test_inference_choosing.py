"""Votes and pass@k against counting by hand, the search against an exhaustive one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from rlhf.inference.measure import (
    Drawn,
    Point,
    choices,
    draw_answers,
    greedy_point,
    sampling_points,
    search_points,
    training_needed,
    verified,
)
from rlhf.inference.search import tree_search
from rlhf.inference.select import majority_vote, pass_at_k, rerank
from rlhf.inference.verifier import Verifier, right_so_far, scores, verifier_loss
from rlhf.verifiable.arithmetic import END, VOCABULARY, Addition
from rlhf.verifiable.compute import weights
from rlhf.verifiable.evaluate import accuracy
from rlhf.verifiable.grpo import answer_mask
from rlhf.verifiable.start import make_model


def winner(row: list[int], weights: list[float]) -> int:
    """By counting: the first place of the answer with most votes."""
    votes: Counter[int] = Counter()
    for answer, weight in zip(row, weights, strict=True):
        votes[answer] += weight  # type: ignore[assignment]
    most = max(votes.values())
    return next(i for i, answer in enumerate(row) if votes[answer] == most)


@pytest.mark.exercise("inference.select.majority_vote")
@pytest.mark.parametrize(("p", "n"), [(50, 7), (1, 4), (3, 1), (5, 5), (30, 12)])
def test_votes_are_counted(p: int, n: int) -> None:
    rng = np.random.default_rng(n)
    answers = rng.integers(-2, 3, size=(p, n)) * 10**12
    weights = rng.integers(0, 4, size=(p, n)).astype(float)
    kept = answers.copy(), weights.copy()
    plain, weighted = majority_vote(answers), majority_vote(answers, weights)
    assert (answers == kept[0]).all()
    assert (weights == kept[1]).all()
    assert plain.shape == weighted.shape == (p,)
    rows = answers.tolist()
    assert plain.tolist() == [winner(row, [1.0] * n) for row in rows]
    assert weighted.tolist() == [winner(*x) for x in zip(rows, weights.tolist(), strict=True)]


@pytest.mark.exercise("inference.select.majority_vote")
def test_ties_go_to_the_answer_that_came_first() -> None:
    answers = np.array([[5, 3, 3, 5], [3, 5, 5, 3], [1, 2, 3, 4], [9, 2, 1, 2]])
    assert majority_vote(answers).tolist() == [0, 0, 0, 1]
    assert majority_vote(answers, np.zeros((4, 4))).tolist() == [0, 0, 0, 0]
    half = np.full((4, 4), 0.5)
    assert majority_vote(answers, half).tolist() == [0, 0, 0, 1]


@pytest.mark.exercise("inference.select.majority_vote")
def test_weights_can_overrule_the_majority() -> None:
    answers = np.array([[7, 8, 8, 8]])
    assert majority_vote(answers).tolist() == [1]
    assert majority_vote(answers, np.array([[0.9, 0.1, 0.2, 0.3]])).tolist() == [0]
    assert majority_vote(answers, np.array([[0.5, 0.1, 0.2, 0.3]])).tolist() == [1]


@pytest.mark.exercise("inference.select.pass_at_k")
@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 2), (6, 5), (6, 6), (1, 1), (5, 3)])
def test_pass_at_k_is_the_share_of_all_choices(n: int, k: int) -> None:
    right = np.arange(n + 1)
    found = pass_at_k(right, n, k)
    assert found.dtype == np.float64
    assert right.tolist() == list(range(n + 1))
    for count in range(n + 1):
        marks = [i < count for i in range(n)]
        sets = [any(chosen) for chosen in combinations(marks, k)]
        assert found[count] == pytest.approx(sum(sets) / len(sets))


@pytest.mark.exercise("inference.select.pass_at_k")
def test_pass_at_k_of_many_answers_is_exact() -> None:
    found = pass_at_k(np.array([0, 1, 5000, 10_000]), 10_000, 100)
    assert found == pytest.approx([0, 0.01, 1 - 2**-100.7, 1.0], abs=1e-12)
    few = pass_at_k(np.array([3]), 200, 10)[0]
    assert few == pytest.approx(1 - 190 * 189 * 188 / (200 * 199 * 198))
    assert few != pytest.approx(1 - (1 - 3 / 200) ** 10, abs=1e-4)  # the biased estimate


@pytest.mark.exercise("inference.select.pass_at_k")
@pytest.mark.parametrize("k", [0, 5, -1])
def test_more_answers_than_were_drawn_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="k"):
        pass_at_k(np.array([1]), 4, k)


def test_reranking_takes_the_first_of_the_best() -> None:
    assert rerank(np.array([[0.1, 0.9, 0.9], [3.0, 1.0, 2.0]])).tolist() == [1, 0]


def test_ways_to_choose_on_answers_made_up() -> None:
    """Two questions, four answers each; the likeliest, the best scored and the most frequent
    differ.
    """
    code = np.array([[1, 1, 2, 3], [4, 5, 5, 6]])
    drawn = Drawn(
        code, code == np.array([[2], [5]]), np.ones((2, 4), int),
        np.array([[0.0, 0, -1, -1], [-1, 0, 0, 0]]), np.array([[0.1, 0.1, 0.9, 0], [1, 0, 0, 0]]),
    )  # fmt: skip
    whole = dict(choices(drawn, 4))
    assert whole == {
        "majority vote": 50, "verifier": 50, "weighted vote": 50, "likelihood": 50,
        "any right (pass@n)": 100,
    }  # fmt: skip
    single = dict(choices(drawn, 1))
    assert set(single.values()) == {100 * 3 / 8}  # one answer leaves nothing to choose
    pairs = dict(choices(drawn, 2))
    assert pairs["any right (pass@n)"] == pytest.approx(100 * (3 / 6 + 5 / 6) / 2)
    assert pairs["verifier"] == 25 * 2  # right: second half of the first, second of the second


@pytest.fixture(scope="module")
def task() -> Addition:
    return Addition(2, "units_first", 4)


@pytest.fixture(scope="module")
def model(task: Addition) -> Any:
    torch.manual_seed(0)
    found = make_model(task, 16, 2, 2, "cpu").requires_grad_(False)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


@pytest.fixture(scope="module")
def verifier(task: Addition) -> Verifier:
    torch.manual_seed(1)
    found = Verifier(make_model(task, 16, 2, 2, "cpu")).requires_grad_(False)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return found


def test_the_verifier_judges_every_token_by_those_before_it(
    task: Addition, verifier: Verifier
) -> None:
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:3]))
    answer = torch.randint(1, 11, (3, 4))
    whole = verifier(prompt, answer)
    assert whole.shape == (3, 4)
    for t in range(4):
        following = verifier.following(torch.cat([prompt, answer[:, :t]], dim=1))
        assert following.shape == (3, VOCABULARY)
        direct = following.gather(1, answer[:, t : t + 1])[:, 0]
        assert torch.allclose(whole[:, t], direct, atol=1e-5)


def test_what_is_right_so_far() -> None:
    expected = torch.tensor([[1, 2, 3]]).expand(4, -1)
    answer = torch.tensor([[1, 2, 3], [1, 0, 3], [0, 2, 3], [1, 2, 0]])
    found = right_so_far(answer, expected)
    assert found.tolist() == [
        [True, True, True], [True, False, False], [False, False, False], [True, True, False],
    ]  # fmt: skip


def test_the_verifiers_loss_ends_with_the_first_mistake() -> None:
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    right = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    counted = [(0, 0), (1, 0), (1, 1), (2, 0)]
    terms = [
        -torch.log(torch.sigmoid(logits[n, t] if right[n, t] else -logits[n, t])).item()
        for n, t in counted
    ]
    assert verifier_loss(logits, mask, right).item() == pytest.approx(np.mean(terms), abs=1e-6)
    p = torch.sigmoid(logits)
    expected = [p[0, 0], p[1, 0] * p[1, 1] * p[1, 2], p[2].prod()]
    assert scores(logits, mask).exp().tolist() == pytest.approx([x.item() for x in expected])


def test_a_wide_search_is_exhaustive(task: Addition, model: Any, verifier: Verifier) -> None:
    """With every continuation kept, the best finished answer is found; by trying all of them."""
    short = 2
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:3]))
    found = tree_search(model, verifier, prompt, 10**6, VOCABULARY, short, END)
    assert found.answer.shape == (3, short)
    every = torch.cartesian_prod(torch.arange(VOCABULARY), torch.arange(VOCABULARY))
    every = every[every[:, 0] != END]
    every = torch.cat([every[every[:, 1] == END], torch.full((1, 2), END)])
    mask = answer_mask(every, END)
    for row in range(3):
        found_here = scores(verifier(prompt[row].expand(len(every), -1), every), mask)
        assert torch.equal(found.answer[row], every[found_here.argmax()])


def test_a_search_of_width_one_and_one_continuation_is_greedy(
    task: Addition, model: Any, verifier: Verifier
) -> None:
    from pretraining import generate

    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:40]))
    greedy = generate(model, prompt, 4, temperature=0, end=END)
    found = tree_search(model, verifier, prompt, 1, 1, 4, END)
    ended = (greedy == END).any(dim=1)
    assert ended.any()
    assert torch.equal(found.answer[ended], greedy[ended])
    tokens = int(answer_mask(greedy, END).sum())
    assert (found.drawn, found.scored) == (tokens, tokens)


def test_a_search_counts_its_tokens_and_refuses_no_beams(
    task: Addition, model: Any, verifier: Verifier
) -> None:
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:5]))
    found = tree_search(model, verifier, prompt, 2, 3, 1, END)
    assert (found.drawn, found.scored) == (5, 5)
    with pytest.raises(ValueError, match="width and expand must be 1 or more, got 0 and 3"):
        tree_search(model, verifier, prompt, 0, 3, 1, END)


def test_points_have_the_operations_of_their_tokens(
    task: Addition, model: Any, verifier: Verifier
) -> None:
    torch.manual_seed(0)
    asked = task.pairs("test")[:20]
    drawn = draw_answers(model, verifier, task, asked, 4)
    assert drawn.code.shape == (20, 4)
    first = [drawn.code[i, 0] for i in range(20)]
    assert len(set(first)) > 5
    points = sampling_points(drawn, model, verifier, task.prompt_length)
    assert {p.n for p in points} == {1, 2, 4}
    vote = next(p for p in points if p.method == "majority vote" and p.n == 4)
    assert vote.tokens == pytest.approx(4 * drawn.length.mean())
    assert vote.flops == pytest.approx(2 * weights(model) * (6 + vote.tokens))
    judged = next(p for p in points if p.method == "verifier" and p.n == 4)
    assert judged.flops - vote.flops == pytest.approx(2 * verifier.weights() * (6 + vote.tokens))
    search = search_points(model, verifier, task, asked, [1, 2])
    assert [p.n for p in search] == [1, 2]
    greedy = greedy_point(model, task, asked)
    assert search[0].accuracy == greedy.accuracy  # one beam, one continuation
    assert greedy.accuracy == pytest.approx(100 * accuracy(model, task, asked))
    assert greedy.flops == pytest.approx(2 * weights(model) * (6 + greedy.tokens))


def test_equal_answers_have_equal_codes(task: Addition, model: Any, verifier: Verifier) -> None:
    torch.manual_seed(0)
    pairs = np.repeat(task.pairs("test")[:1], 200, axis=0)
    drawn = draw_answers(model, verifier, task, pairs, 1)
    for code in np.unique(drawn.code):
        rows = drawn.code == code
        assert len(np.unique(drawn.length[rows])) == 1
        assert np.ptp(drawn.log_likelihood[rows]) < 1e-4
        assert np.ptp(drawn.score[rows]) < 1e-4
    assert len(np.unique(drawn.log_likelihood.round(4))) == len(np.unique(drawn.code))


def test_scores_are_probabilities_of_the_tokens_up_to_the_end(
    task: Addition, verifier: Verifier
) -> None:
    prompt = torch.from_numpy(task.prompts(task.pairs("test")[:2]))
    answer = torch.tensor([[3, END, END, END], [1, 2, 3, END]])
    found = verified(verifier, prompt, answer, answer_mask(answer, END))
    p = verifier(prompt, answer).sigmoid()
    assert found.tolist() == pytest.approx([p[0, :2].prod().item(), p[1].prod().item()], rel=1e-4)


def test_the_training_that_an_accuracy_takes() -> None:
    curve = [(0.0, 30.0), (10.0, 50.0), (20.0, 90.0)]
    assert training_needed(curve, 40) == pytest.approx(5)
    assert training_needed(curve, 70) == pytest.approx(15)
    assert training_needed(curve, 20) == 0
    assert training_needed(curve, 95) is None


def test_the_picture_has_both_panels() -> None:
    from rlhf.inference.figures import METHODS, figure
    from rlhf.inference.report import table

    points = [Point(name, n, 4.0 * n, 1e4 * n, 50 + n) for name in METHODS for n in (1, 2)]
    points.append(Point("greedy", 1, 4.0, 1e4, 40))
    chart = figure(points, [(0.0, 40.0), (1e6, 50.0), (2e6, 90.0)], 1000)
    assert len(chart.axes) == 2
    assert "1,000 questions" in chart.axes[1].get_xlabel()
    assert table(points, [(1e6, 50.0)]).count("\n") == 16
