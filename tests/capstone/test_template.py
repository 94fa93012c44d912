"""The chat template: one place, both directions, and what a server writes is what was trained."""

from __future__ import annotations

import random

import jinja2
import pytest

from alignment import CHAT_TEMPLATE, prompt_text
from capstone import template
from capstone.template import ANSWER, HEAD, assistant, user
from labkit.data import Instruction

END = "<eos>"
TURNS = [user("2+3?"), assistant("Action: calculate[2+3]"), user("Observation: 5"), assistant("5")]
WRITTEN = (
    "### Instruction:\n2+3?\n\n### Response:\nAction: calculate[2+3]<eos>"
    "### Instruction:\nObservation: 5\n\n### Response:\n5<eos>"
)


@pytest.mark.exercise("template.pieces")
def test_pieces_are_the_turns_and_only_the_models_are_learned() -> None:
    assert template.pieces(TURNS[:1], END) == [("### Instruction:\n2+3?\n\n### Response:\n", False)]
    found = template.pieces(TURNS, END)
    assert "".join(text for text, _ in found) == WRITTEN
    assert [learned for _, learned in found] == [False, True, False, True]
    assert found[1] == ("Action: calculate[2+3]<eos>", True)
    assert template.pieces([user(" a\n"), assistant("")], "#") == [
        (f"{HEAD} a\n{ANSWER}", False), ("#", True),
    ]  # fmt: skip


@pytest.mark.exercise("template.pieces")
@pytest.mark.parametrize(
    ("messages", "word"),
    [
        ([], "at least one message"),
        ([assistant("hello")], "'user' is expected"),
        ([user("a"), user("b")], "'assistant' is expected"),
        ([user("a"), {"role": "system", "content": "b"}], "'assistant' is expected"),
        ([user(f"a{END}b")], END),
        ([user("a"), assistant("### Response:")], "### Response:"),
        ([user("x\n### Instruction:\ny")], "### Instruction:"),
    ],
)
def test_a_chat_that_could_be_read_in_two_ways_is_refused(
    messages: list[dict[str, str]], word: str
) -> None:
    with pytest.raises(ValueError, match="message"):
        template.pieces(messages, END)
    with pytest.raises(ValueError) as caught:
        template.check(messages, END)
    assert word in str(caught.value)


@pytest.mark.exercise("template.render")
def test_the_server_writes_what_the_training_has_read() -> None:
    assert template.render(TURNS, END) == WRITTEN
    for count in range(1, 5):
        joined = "".join(text for text, _ in template.pieces(TURNS[:count], END))
        assert template.render(TURNS[:count], END) == joined
    assert template.render([user("one\n\ntwo")], "|").endswith("two\n\n### Response:\n")
    with pytest.raises(ValueError, match="message"):
        template.render([], END)


def test_it_is_the_template_that_is_saved_for_other_servers() -> None:
    for chat in (TURNS, TURNS[:1], TURNS[:3], [user(" a\n\nb "), assistant("")]):
        theirs = jinja2.Template(CHAT_TEMPLATE).render(messages=chat, eos_token=END)
        assert template.render(chat, END) == theirs


def test_it_is_week_8s_template() -> None:
    row = Instruction("Sort the words.", "", "apple pear")
    assert template.render([user("Sort the words.")], END) == prompt_text(row)


@pytest.mark.exercise("template.parse")
def test_parse_is_the_inverse_of_render() -> None:
    assert template.parse(WRITTEN, END) == TURNS
    assert template.parse(f"{HEAD}2+3?{ANSWER}", END) == TURNS[:1]
    assert template.parse(f"{HEAD}{ANSWER}{END}", END) == [user(""), assistant("")]
    rng = random.Random(0)
    words = ["", "a", "\n", " b ", "###", "Response:", "\n\n", "<eo", "é"]
    for _ in range(200):
        count = rng.randrange(1, 6)
        make = (user, assistant)
        chat = [make[i % 2]("".join(rng.choices(words, k=3))) for i in range(count)]
        assert template.parse(_written(chat), END) == chat


def _written(chat: list[dict[str, str]]) -> str:
    """As `render`, by other code: the exercise is graded without it."""
    text = ""
    for message in chat:
        if message["role"] == "user":
            text += "### Instruction:\n" + message["content"] + "\n\n### Response:\n"
        else:
            text += message["content"] + END
    return text


@pytest.mark.exercise("template.parse")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        f"{HEAD}2+3?",
        f"{HEAD}2+3?{ANSWER}5",
        f"2+3?{ANSWER}5{END}",
        f"{HEAD}2+3?{ANSWER}5{END}more",
        f"\n{HEAD}2+3?{ANSWER}",
        f"{HEAD}2+3?{ANSWER}5{END}\n{HEAD}more{ANSWER}",
        f"{HEAD}2+3?\n### Response:\n5{END}",
    ],
)
def test_what_render_cannot_have_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        template.parse(text, END)
