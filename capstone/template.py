"""The chat template, in one place for training and serving.

    ### Instruction:            a user's turn
    Question: What is 2+3?
                                a blank line: the separator
    ### Response:               the model reads up to and including this line,
    Thought: ...<eos>           and writes this: an assistant's turn
    ### Instruction:            the next turn follows directly
    Observation: 5

This is week 8's template. If a server writes it slightly differently from the training, nothing
fails: the model is only worse. So `pieces` is the one place that knows it. Training takes the
pieces, one by one, with a mark for what is learned; the server takes the same pieces, joined.

Letters of the code: `end` is the text of the end-of-text token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit import exercise

HEAD = "### Instruction:\n"
ANSWER = "\n\n### Response:\n"
MARKS = (HEAD.strip(), ANSWER.strip())

Message = Mapping[str, str]
"""`role`, user or assistant, and `content`, as in OpenAI's chats."""


def user(content: str) -> dict[str, str]:
    """A user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    """The model's message."""
    return {"role": "assistant", "content": content}


def check(messages: Sequence[Message], end: str) -> None:
    """Raises ValueError unless user and assistant take turns, the user first, and no content holds
    a mark of the template or `end`: whoever could write these could write in another's name."""
    if not messages:
        raise ValueError("a chat needs at least one message")
    for number, message in enumerate(messages):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise ValueError(
                f"message {number} is of role {message['role']!r}, and {expected!r} is expected: "
                "user and assistant take turns, the user first"
            )
        for mark in (*MARKS, end):
            if mark in message["content"]:
                raise ValueError(f"message {number} contains {mark!r}, which the template uses")


@exercise(minutes=10)
def pieces(messages: Sequence[Message], end: str) -> list[tuple[str, bool]]:
    """A chat as pieces of text, and whether the model learns to write each of them.

    First `check(messages, end)`. Then one piece for each message: a user's is HEAD, the content and
    ANSWER, which is given to the model (False); an assistant's is the content and `end`, which the
    model learns (True). Nothing is added or removed otherwise; the joined pieces are the chat.
    """
    check(messages, end)
    return [
        (f"{HEAD}{message['content']}{ANSWER}", False)
        if message["role"] == "user"
        else (f"{message['content']}{end}", True)
        for message in messages
    ]


@exercise(minutes=5)
def render(messages: Sequence[Message], end: str) -> str:
    """The text that a server gives to the model: the texts of `pieces`, joined by nothing.

    A chat that ends with a user's message ends with ANSWER, where the model begins to write. Write
    the template in no second place: use `pieces`.
    """
    return "".join(text for text, _ in pieces(messages, end))


@exercise(minutes=20)
def parse(text: str, end: str) -> list[dict[str, str]]:
    """The messages of a rendered chat: the inverse of `render`.

    Every turn of the user begins with HEAD and its content ends at the next ANSWER. After it comes
    the assistant's turn, whose content ends at the next `end`, or nothing more when the answer is
    still to be written. Content may be empty and may have line breaks at both ends; nothing is
    stripped. Make messages by `user` and `assistant`.

    Raises:
        ValueError for an empty text and for any text that `render` cannot have written: a turn that
        does not begin with HEAD, without ANSWER, or an answer without `end`.
    """
    if not text:
        raise ValueError("the text is empty")
    messages: list[dict[str, str]] = []
    rest = text
    while rest:
        content, answer, after = rest.removeprefix(HEAD).partition(ANSWER)
        if not rest.startswith(HEAD) or not answer:
            raise ValueError(f"no turn of a user: {rest[:60]!r}")
        messages.append(user(content))
        if not after:
            break
        content, ended, rest = after.partition(end)
        if not ended:
            raise ValueError(f"an answer without {end!r}: {after[:60]!r}")
        messages.append(assistant(content))
    return messages
