"""Rows of tokens, their mask, and log-probabilities of answers, by hand and against week 8."""

from collections.abc import Callable

import pytest
import torch

from alignment import Example, labels, sequence_logps
from alignment import collate as week8_collate
from labkit import UsageError
from labkit.data import Preference
from pretraining import GPT, to_huggingface
from rlhf import preferences
from rlhf.preferences import Pair, Rows
from rlhf.start import word_tokenizer


@pytest.mark.exercise("preferences.answer_mask")
def test_only_the_answer_counts() -> None:
    prompt, total = torch.tensor([2, 4, 1]), torch.tensor([5, 5, 3])
    found = preferences.answer_mask(prompt, total, 6)
    expected = [
        [False, False, True, True, True, False],
        [False, False, False, False, True, False],
        [False, True, True, False, False, False],
    ]
    assert found.dtype == torch.bool
    assert found.tolist() == expected
    assert (prompt.tolist(), total.tolist()) == ([2, 4, 1], [5, 5, 3])


@pytest.mark.exercise("preferences.answer_mask")
@pytest.mark.parametrize("width", [3, 4, 9])
def test_mask_of_one_row(width: int) -> None:
    """The answer may fill the row to its end, and begin at its first token."""
    found = preferences.answer_mask(torch.tensor([0]), torch.tensor([3]), width)
    assert found.tolist() == [[True, True, True, *[False] * (width - 3)]]


@pytest.mark.exercise("preferences.answer_mask")
def test_mask_is_on_the_device_of_the_lengths() -> None:
    prompt = torch.zeros(4, dtype=torch.long, device="meta")
    found = preferences.answer_mask(prompt, prompt, 7)
    assert (found.device.type, found.shape) == ("meta", (4, 7))


def test_rows_are_padded_on_the_right(pairs: list[Pair]) -> None:
    rows = preferences.table(pairs)
    assert rows.tokens.shape == rows.mask.shape == (3, 2, 8)
    assert rows.tokens[1, 1].tolist() == [3, 4, 10, 12, 13, 14, 15, 0]
    assert rows.tokens[0, 0].tolist() == [5, 6, 7, 8, 0, 0, 0, 0]
    assert rows.mask[0, 0].tolist() == [False, False, True, True, True, False, False, False]
    assert rows.lengths().tolist() == [[3, 2], [2, 5], [3, 2]]
    part = Rows(rows.tokens[[0, 2]], rows.mask[[0, 2]]).trimmed()
    assert part.tokens.shape == (2, 2, 6)


def test_mismatched_rows_have_the_next_answer(pairs: list[Pair]) -> None:
    rows = preferences.mismatched(pairs)
    answers = [rows.tokens[i][rows.mask[i]].tolist() for i in range(3)]
    assert answers == [pairs[1].chosen, pairs[2].rejected, pairs[0].chosen]
    assert rows.tokens[1, :3].tolist() == pairs[1].prompt


def test_log_probabilities_are_week_8s(make_gpt: Callable[..., GPT], pairs: list[Pair]) -> None:
    """Through Hugging Face's model, attention masks and labels instead of ours."""
    model = make_gpt()
    theirs = to_huggingface(model)
    found = preferences.answer_logps(model, preferences.table(pairs))
    for number, pair in enumerate(pairs):
        for side, answer in enumerate(pair[1:]):
            example = Example([*pair.prompt, *answer], len(pair.prompt))
            batch = week8_collate([example], [labels(example)], 16, False)
            with torch.no_grad():
                expected = sequence_logps(theirs, batch)[0]
            torch.testing.assert_close(found[number, side].detach(), expected, rtol=1e-4, atol=1e-5)


def test_log_probabilities_stand_at_their_tokens(
    make_gpt: Callable[..., GPT], pairs: list[Pair]
) -> None:
    model = make_gpt(1)
    rows = Rows(*(part.flatten(0, 1) for part in preferences.table(pairs)))
    found = preferences.token_logps(model, rows)
    every = model(rows.tokens).log_softmax(-1)
    for n, t in rows.mask.nonzero().tolist():
        torch.testing.assert_close(found[n, t], every[n, t - 1, rows.tokens[n, t]])
    assert not found[~rows.mask].any()


ROWS = [
    Preference("name two birds ?", "owl , crow", "owl"),
    Preference("name one bird ?", "crow", "owl , owl , owl , owl"),
]


def test_encoding_ends_every_answer() -> None:
    tokenizer = word_tokenizer([text for row in ROWS for text in vars(row).values()])
    found = preferences.encode(ROWS, tokenizer, 16, 10)
    assert tokenizer.decode(found[0].prompt) == "name two birds ?"
    assert [tokenizer.decode(side[:-1]) for side in found[1][1:]] == ["crow", ROWS[1].rejected]
    assert {side[-1] for pair in found for side in pair[1:]} == {tokenizer.eos_token_id}
    assert len(preferences.encode(ROWS, tokenizer, 16, 4, "drop")) == 1
    assert len(preferences.encode(ROWS, tokenizer, 8, 4, "drop")) == 1  # 4 + 4 fills the row


@pytest.mark.parametrize(
    ("row", "context", "answer", "message"),
    [
        (ROWS[0], 4, 4, "row 0 does not fit into context=4 .* the prompt alone fills the context"),
        (ROWS[0], 7, 7, "has 4 tokens, its longer answer 4. Raise them, or type long_rows=drop"),
        (ROWS[1], 16, 7, "answer_tokens=7"),
        (Preference("name ?", "owl", " owl "), 16, 8, "the two answers of row 0 are the same"),
        (Preference("sing ?", "owl", "crow"), 16, 8, "no tokens for text 0.*base=gpt2"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_refused(
    row: Preference, context: int, answer: int, message: str
) -> None:
    tokenizer = word_tokenizer([text for row in ROWS for text in vars(row).values()])
    with pytest.raises(UsageError, match=f"(?s){message}") as error:
        preferences.encode([row], tokenizer, context, answer)
    assert row.chosen not in str(error.value), "the text of a row is not shown"


def test_when_nothing_is_left(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = word_tokenizer([text for row in ROWS for text in vars(row).values()])
    with pytest.raises(UsageError, match="none of the 2 rows fits into context=5"):
        preferences.encode(ROWS, tokenizer, 5, 4, "drop")
