"""The template against Jinja's, the labels against what the libraries would learn."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from alignment import chat
from alignment.chat import IGNORE, Example
from alignment.mixture import mix
from labkit import UsageError
from labkit.data import Instruction, InstructionData

ROWS = [
    Instruction("Sort the words.", "pear apple", "apple pear"),
    Instruction("Say hello.", "", "Hello!"),
    Instruction("Two lines.", "a\nb", "\nb\n\na"),
]


@pytest.mark.exercise("chat.prompt_text")
def test_the_prompt_to_the_letter() -> None:
    assert chat.prompt_text(ROWS[0]) == (
        "### Instruction:\nSort the words.\n\n### Input:\npear apple\n\n### Response:\n"
    )


@pytest.mark.exercise("chat.prompt_text")
@pytest.mark.parametrize(
    "words",
    ["Indent:\n", "  four spaces", "\ttab ", "{braces} %s \\n", "### Response:\n", "<|endoftext|>"],
)
def test_the_users_words_are_left_as_they_are(words: str) -> None:
    """Blanks and line breaks at either end are theirs, and so are the template's own words."""
    alone = chat.prompt_text(Instruction(words, "", "x"))
    assert alone == "### Instruction:\n" + words + "\n\n### Response:\n"
    both = chat.prompt_text(Instruction("Say it.", words, "x"))
    assert both == "### Instruction:\nSay it.\n\n### Input:\n" + words + "\n\n### Response:\n"


@pytest.mark.exercise("chat.prompt_text")
@pytest.mark.parametrize("row", ROWS)
def test_prompt_and_answer_are_what_the_chat_template_renders(
    tokenizer: Any, row: Instruction
) -> None:
    user = {"role": "user", "content": chat.question(row)}
    assistant = {"role": "assistant", "content": row.output}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    assert prompt == chat.prompt_text(row)
    assert whole == chat.prompt_text(row) + row.output + tokenizer.eos_token


def test_tokens_are_prompt_then_answer_then_end(tokenizer: Any) -> None:
    found, dropped = chat.encode(ROWS, tokenizer, 10_000)
    assert dropped == 0
    for example, row in zip(found, ROWS, strict=True):
        head, tail = example.tokens[: example.prompt], example.answer
        assert tokenizer.decode(head) == chat.prompt_text(row)
        assert tokenizer.decode(tail[:-1]) == row.output
        assert tail[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in [*head, *tail[:-1]]


@pytest.mark.parametrize("part", ["instruction", "input", "output"])
def test_the_letters_of_the_end_of_text_are_letters(tokenizer: Any, part: str) -> None:
    """What a row says is data: only `encode` itself may end a text."""
    words = {"instruction": "Say it.", "input": "this", "output": "that"}
    row = Instruction(**(words | {part: f"a {tokenizer.eos_token} b"}))
    (example,), _ = chat.encode([row], tokenizer, 10_000)
    assert example.tokens.count(tokenizer.eos_token_id) == 1
    assert example.tokens[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(example.tokens[:-1]) == chat.prompt_text(row) + row.output
    assert chat.labels(example)[-2:] == [example.tokens[-2], tokenizer.eos_token_id]


def test_a_text_that_the_tokenizer_can_write_only_with_its_end_is_refused() -> None:
    """By character, what is unknown becomes the unknown token, and in week 7 that is the end."""
    from pretraining import build_tokenizer

    by_character = build_tokenizer("char", "mine", "### Instruction:\nResponse: abc", 0)
    ok = Instruction("stop", "", "es")
    chat.encode([ok], by_character, 100)
    with pytest.raises(UsageError, match="writes its end of text into 'Ωs'"):
        chat.encode([ok, Instruction("stop", "", "Ωs")], by_character, 100)


def test_rows_that_do_not_fit_are_dropped_and_counted(tokenizer: Any) -> None:
    sizes = [len(e.tokens) for e in chat.encode(ROWS, tokenizer, 10_000)[0]]
    kept, dropped = chat.encode(ROWS, tokenizer, sorted(sizes)[1])
    assert (len(kept), dropped) == (2, 1)
    assert [len(e.tokens) for e in kept] == [s for s in sizes if s <= sorted(sizes)[1]]


@pytest.mark.parametrize(
    ("row", "part"),
    [(Instruction("Say hello.", "", "  \n"), "output"), (Instruction("", "x", "y"), "instruction")],
)
def test_an_empty_row_is_refused_and_named(tokenizer: Any, row: Instruction, part: str) -> None:
    with pytest.raises(UsageError, match=f"row 1 has an empty {part}"):
        chat.encode([ROWS[0], row], tokenizer, 100)


@pytest.mark.exercise("chat.labels")
def test_learned_are_the_answer_and_its_end_and_nothing_else() -> None:
    example = Example([7, 8, 9, 5, 6, 0], prompt=3)
    assert chat.labels(example) == [IGNORE, IGNORE, IGNORE, 5, 6, 0]


@pytest.mark.exercise("chat.labels")
def test_the_end_is_learned_even_where_its_token_also_occurs_in_the_prompt() -> None:
    """Padding, end and beginning of text are one token in GPT-2: places tell, values do not."""
    example = Example([0, 8, 0, 5, 0], prompt=3)
    assert chat.labels(example) == [IGNORE, IGNORE, IGNORE, 5, 0]


@pytest.mark.exercise("chat.labels")
def test_the_example_stays_as_it_is() -> None:
    example = Example([7, 8, 9, 5, 6, 0], prompt=3)
    chat.labels(example)[3:] = []
    assert example.tokens == [7, 8, 9, 5, 6, 0], "the example itself stays as it is"


@pytest.mark.exercise("chat.labels")
def test_the_first_token_is_never_learned_even_without_a_prompt() -> None:
    assert chat.labels(Example([5, 6, 0], prompt=0)) == [IGNORE, 6, 0]
    assert chat.labels(Example([0], prompt=0)) == [IGNORE]
    assert chat.labels(Example([5, 6, 0], prompt=1)) == [IGNORE, 6, 0]


@pytest.mark.exercise("chat.labels")
def test_of_an_empty_answer_the_end_is_learned() -> None:
    assert chat.labels(Example([7, 8, 0], prompt=2)) == [IGNORE, IGNORE, 0]


@pytest.mark.parametrize(
    ("bug", "learned"),
    [
        ("the end of text is masked with the padding, by its value", [5, 6]),
        ("the prompt is learned too", [8, 9, 5, 6, 0]),
    ],
)
def test_the_bugs_of_labels(
    planted: Callable[[str], ModuleType], bug: str, learned: list[int]
) -> None:
    """The first is broken_eos."""
    found = planted(f"chat.labels: {bug}").labels(Example([7, 8, 9, 5, 6, 0], prompt=3))
    assert len(found) == 6
    assert [label for label in found if label != IGNORE] == learned


def sets() -> tuple[InstructionData, InstructionData]:
    rows = tuple(Instruction(f"Say {i}.", "", str(i)) for i in range(12))
    mine = InstructionData("mine", "test", rows[:8], rows[8:10], rows[10:])
    commands = tuple(Instruction("Repeat the words.", f"w{i}", f"w{i}") for i in range(9))
    return mine, InstructionData("commands", "test", commands[:5], commands[5:7], commands[7:])


def test_a_share_of_commands_is_mixed_into_training_alone(tokenizer: Any) -> None:
    mine, commands = sets()
    found = mix(mine, commands, 0.2, tokenizer, 100, batch_size=4)
    texts = [tokenizer.decode(example.tokens) for example in found.train]
    assert len(texts) == 10  # 8 of the set, and 2 of 10 are commands
    assert sum("Repeat" in text for text in texts) == 2
    for split in (found.valid, found.test):
        assert not any("Repeat" in tokenizer.decode(example.tokens) for example in split)
    held_out = {row.input for row in commands.test}
    assert not any(word in text.split() for text in texts for word in held_out)


def test_too_few_commands_are_counted_aloud(
    tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, commands = sets()
    assert len(mix(mine, commands, 0.2, tokenizer, 100, batch_size=4).train) == 10
    assert "commands" not in capsys.readouterr().err, "2 are wanted, and there are 5"
    assert len(mix(mine, commands, 0.5, tokenizer, 100, batch_size=4).train) == 8 + 5
    said = capsys.readouterr().err
    assert "commands=0.5 asks for 8 commands, and there are 5: all are taken, 38.5%" in said


def test_commands_alone_are_mixed_with_nothing(tokenizer: Any) -> None:
    _, commands = sets()
    assert len(mix(commands, commands, 0.5, tokenizer, 100, batch_size=2).train) == 5


def test_dropped_rows_are_said_aloud_and_too_few_left_are_refused(
    tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, commands = sets()
    everything = (*mine.train, *mine.valid, *mine.test)
    longest = max(len(e.tokens) for e in chat.encode(everything, tokenizer, 999)[0])
    long_row = Instruction("Say it all.", "x" * 200, "x")
    with_long = InstructionData("mine", "test", (*mine.train, long_row), mine.valid, mine.test)
    mix(with_long, commands, 0.0, tokenizer, longest, batch_size=2)
    assert f"train: 1 of 9 rows have more than {longest} tokens" in capsys.readouterr().err
    with pytest.raises(UsageError, match="only 0 of 8 train rows fit into context=5"):
        mix(mine, commands, 0.0, tokenizer, 5, batch_size=2)
