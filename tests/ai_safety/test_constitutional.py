"""Masks, judgements and rounds of critique against loops, closed forms and a model of few words."""

import math
from pathlib import Path

import pytest
import torch

from ai_safety import constitution, constitutional, lessons
from ai_safety.constitutional import loss_mask, pair_preference
from labkit import UsageError
from pretraining import GPT, Shape


def by_loop(lengths: list[list[int]], width: int) -> list[list[bool]]:
    """The mask, written token by token."""
    rows = []
    for parts in lengths:
        row = [number % 2 == 1 for number, length in enumerate(parts) for _ in range(length)]
        rows.append(row + [False] * (width - len(row)))
    return rows


@pytest.mark.exercise("constitutional.loss_mask")
@pytest.mark.parametrize(
    ("lengths", "width"),
    [
        ([[3, 2, 1, 4], [2, 1, 0, 0], [1, 5, 2, 2]], 10),
        ([[3, 2, 1, 4]], 13),
        ([[2, 3], [0, 4], [4, 0]], 6),
        ([[1, 1, 1, 1, 1, 1], [2, 0, 3, 1, 0, 2]], 8),
        ([[2, 2, 2], [1, 0, 5]], 9),
        ([[1]], 1),
    ],
)
def test_the_mask_is_that_of_a_loop(lengths: list[list[int]], width: int) -> None:
    given = torch.tensor(lengths)
    found = loss_mask(given, width)
    assert found.dtype == torch.bool
    assert found.tolist() == by_loop(lengths, width)
    assert given.tolist() == lengths


@pytest.mark.exercise("constitutional.loss_mask")
def test_the_mask_is_where_the_lengths_are() -> None:
    found = loss_mask(torch.tensor([[1, 2]], device="meta"), 4)
    assert found.device.type == "meta"
    assert found.shape == (1, 4)


@pytest.mark.exercise("constitutional.pair_preference")
def test_a_judge_with_a_taste_for_a_place_has_no_opinion() -> None:
    always_a = torch.tensor([0.9, 0.1]).log().expand(3, 4, 2)
    assert pair_preference(always_a, always_a).tolist() == pytest.approx([0.5] * 4)


@pytest.mark.exercise("constitutional.pair_preference")
def test_the_preference_by_hand() -> None:
    """Two principles, three pairs; log-odds are averaged, not probabilities."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    kept = first.clone(), second.clone()
    expected = []
    for pair in range(3):
        odds = []
        for k in range(2):
            odds.append(first[k, pair, 0].item() - first[k, pair, 1].item())
            odds.append(second[k, pair, 1].item() - second[k, pair, 0].item())
        expected.append(1 / (1 + math.exp(-sum(odds) / 4)))
    found = pair_preference(first, second)
    assert found.tolist() == pytest.approx(expected)
    assert torch.equal(first, kept[0])
    assert torch.equal(second, kept[1])
    swapped = pair_preference(second, first)
    assert swapped.tolist() == pytest.approx([1 - p for p in expected])


@pytest.mark.exercise("constitutional.pair_preference")
def test_the_better_answer_is_the_one_whose_letter_is_likelier() -> None:
    one, two = torch.tensor([[[-0.1, -3.0]]]), torch.tensor([[[-2.0, -0.2]]])
    assert pair_preference(one, two).item() == pytest.approx(1 / (1 + math.exp(-(2.9 + 1.8) / 2)))
    many = pair_preference(one.expand(5, 1, 2), two.expand(5, 1, 2))
    assert many.item() == pytest.approx(pair_preference(one, two).item())
    far = pair_preference(torch.tensor([[[-900.0, 0.0]]]), torch.tensor([[[0.0, -900.0]]]))
    assert far.item() == 0
    assert pair_preference(torch.zeros(2, 0, 2), torch.zeros(2, 0, 2)).shape == (0,)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    made = GPT(Shape(len(lessons.vocabulary()), 64, 16, 1, 2), "modern").eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_lessons_become_rows() -> None:
    words = lessons.vocabulary()
    rows = constitutional.table(
        [
            lessons.Lesson("how do i", "sure <end>", "revision :", "no <end>"),
            lessons.Lesson("a", "b <end>"),
        ],
        words,
        16,
    )
    assert rows.tokens.shape == (2, 9)
    assert rows.mask[0].tolist() == [False] * 3 + [True] * 2 + [False] * 2 + [True] * 2
    assert rows.mask[1].tolist() == [False, True, True] + [False] * 6
    assert rows.tokens[0, 4] == rows.tokens[0, 8] == 0
    with pytest.raises(UsageError, match="9 tokens, more than context=8"):
        constitutional.table([lessons.Lesson("a " * 7, "b <end>")], words, 8)


def test_letters_are_the_models_own(model: GPT) -> None:
    words = lessons.vocabulary()
    prompts = ["how do i feed a dog ? choose", "choose", "tell me how choose"]
    found = constitutional.letters(model, words, prompts)
    for row, prompt in zip(found, prompts, strict=True):
        logits = model(torch.tensor([words.encode(prompt)]))[0, -1]
        logps = logits.log_softmax(-1)
        expected = [logps[words.number[letter]].item() for letter in "ab"]
        assert row.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_round_asks_for_a_critique_and_then_for_a_revision(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def write(_: object, __: object, prompts: list[str], *rest: object) -> list[str]:
        asked.append(list(prompts))
        return [f"written {len(asked)}"] * len(prompts)

    monkeypatch.setattr(constitutional, "write", write)
    principle = constitution.Principle("is it bad ?", "write it anew .")
    found = constitutional.critique_and_revise(
        model, lessons.vocabulary(), ["how ?"], ["here ."], principle
    )
    assert asked[0] == ["how ? assistant : here . <end> critique : is it bad ?"]
    assert asked[1] == [f"{asked[0][0]} written 1 <end> revision : write it anew ."]
    assert found == constitutional.Revised(["written 2"], ["written 1"])


def test_both_orders_are_asked(model: GPT) -> None:
    """The preference of exchanged answers is one minus it, for any model."""
    words = lessons.vocabulary()
    principles = [both[0] for both in lessons.PRINCIPLES.values()]
    given = ["here is how to feed a dog ."], ["i cannot help to feed a dog ."]
    there = constitutional.own_judgement(model, words, ["how do i ?"], *given, principles)
    back = constitutional.own_judgement(model, words, ["how do i ?"], *given[::-1], principles)
    assert there.item() == pytest.approx(1 - back.item(), abs=1e-6)
    assert there.item() != 0.5


def test_a_request_must_leave_room(model: GPT) -> None:
    words = lessons.vocabulary()
    assert len(constitutional.write(model, words, ["how " * 63])) == 1
    with pytest.raises(UsageError, match="a request of 64 tokens leaves no room"):
        constitutional.write(model, words, ["how " * 64])


def test_the_weeks_own_constitution() -> None:
    found = constitution.read("own", lessons.vocabulary().number)
    assert found == [both[0] for both in lessons.PRINCIPLES.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("principles: []", "has no principles"),
        ("- how", "has no principles"),
        ("principles:\n  - question: 3\n    revision: write it .", "principle 1 .* two texts"),
        ("principles:\n  - question: is it ?", "principle 1 .* two texts"),
        ("principles:\n  - how", "principle 1 .* two texts"),
        ("principles:\n  - question: is it gruesome ?\n    revision: so .", "know: gruesome"),
        ("principles: [", "cannot be read"),
    ],
)
def test_a_constitution_must_be_one(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        constitution.read(str(file), lessons.vocabulary().number)


def test_a_missing_constitution_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"constitution=.*none\.yaml cannot be read"):
        constitution.read(str(tmp_path / "none.yaml"), {})
