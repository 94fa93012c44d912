"""Instructions as tokens: one template, one boundary, and labels for the answer only.

    ### Instruction:            the template of Alpaca (Taori et al. 2023) without its opening
    Sort the words.             sentence, for which a small context has no room

    ### Input:
    pear apple

    ### Response:               the model is given everything up to and including this line,
    apple pear<eos>             and learns this one, with its end of text

Prompt and answer are tokenized separately and then joined, so that no token crosses the boundary:
training and generation see the same prompt tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit import UsageError, exercise

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from labkit.data import Instruction

IGNORE = -100
"""Label of a token that is not learned: the default of F.cross_entropy and of the libraries."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\n' + message['content'] + '\n\n### Response:\n' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""The same template in Jinja. It is saved with the tokenizer, so the model is later used with the
same words that it was trained with."""


@dataclass(frozen=True)
class Example:
    """Tokens of prompt, answer and end of text, of which the first `prompt` are the prompt."""

    tokens: list[int]
    prompt: int

    @property
    def answer(self) -> list[int]:
        """Tokens of the answer, with the end of text."""
        return self.tokens[self.prompt :]


def question(row: "Instruction") -> str:
    """The user's message: the instruction, and its input if there is one."""
    return f"{row.instruction}\n\n### Input:\n{row.input}" if row.input else row.instruction


@exercise(minutes=5)
def prompt_text(row: "Instruction") -> str:
    """The text that the model is given before it answers, exactly as in the module's docstring.

    The headings `### Instruction:` and `### Response:` end in a line break each, a blank line comes
    before `### Response:`, and the user's words between them are `question(row)`.
    """
    return f"### Instruction:\n{question(row)}\n\n### Response:\n"


def tokens_of(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    """Each text as tokens, none of them special: the letters `<|endoftext|>` in a text are encoded
    as letters. Only `encode` adds the real end of text after an answer.

    Raises UsageError for a text that the tokenizer has no tokens for: if it used the end of text
    for unknown characters, a model would learn to stop in the middle of an answer.
    """
    found: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, split_special_tokens=True, verbose=False
    )["input_ids"]
    for text, tokens in zip(texts, found, strict=True):
        if tokenizer.eos_token_id in tokens:
            raise UsageError(
                f"the base's tokenizer writes its end of text into {text[:200]!r}, because it has "
                "no token for some of it; take a base whose tokenizer can write any text, such as "
                "base=gpt2"
            )
    return found


def encode(
    rows: "Sequence[Instruction]", tokenizer: "PreTrainedTokenizerBase", context: int
) -> tuple[list[Example], int]:
    """Rows as examples of at most `context` tokens, and how many rows did not fit and were dropped.

    Raises UsageError for a row without an instruction or an answer, or one that the tokenizer
    cannot write.
    """
    for number, row in enumerate(rows):
        for part in ("instruction", "output"):
            if not getattr(row, part).strip():
                raise UsageError(
                    f"row {number} has an empty {part}: {row}. A model tuned on empty answers "
                    "learns to say nothing; leave such rows out of the data."
                )
    if not rows:
        return [], 0
    prompts, outputs = (
        tokens_of(texts, tokenizer)
        for texts in ([prompt_text(row) for row in rows], [row.output for row in rows])
    )
    end = [tokenizer.eos_token_id]
    found = [
        Example([*prompt, *output, *end], len(prompt))
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    kept = [example for example in found if len(example.tokens) <= context]
    return kept, len(found) - len(kept)


@exercise(minutes=10)
def labels(example: Example) -> list[int]:
    """The label of each token of an example: the token itself if it is learned, else IGNORE.

    The loss covers the answer's tokens and the end of text, and no token of the prompt. Select them
    by position and never by value: where the padding token *is* the end of text, as in GPT-2,
    masking by value masks the end as well, and the model never learns to stop.

    Returns:
        As many labels as tokens, not shifted (the loss does that). The first is always IGNORE, even
        when there is no prompt: in a packed row the token before it belongs to another example.
        `example` itself stays as it is.
    """
    start = max(1, example.prompt)
    return [IGNORE] * start + example.tokens[start:]
