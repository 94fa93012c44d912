"""What a run is about: the model it begins with, and its pairs in that model's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labkit import Run, UsageError
from labkit.data import Preference, PreferenceData, check_batch_size
from pretraining import GPT
from rlhf.preferences import Pair, encode
from rlhf.settings import SFTSettings
from rlhf.start import base_of, start_of


@dataclass(frozen=True)
class Limits:
    """How long rows may be: None means what the model allows."""

    context: int | None
    answer: int | None
    long: Literal["refuse", "drop"]

    def of(self, model: GPT) -> tuple[int, int]:
        """Tokens of a row and of an answer for `model`. Raises UsageError for more than it has."""
        most = model.shape.context
        context = self.context or most
        if context > most:
            raise UsageError(f"context={context} is more than the base's {most}; type {most}")
        answer = self.answer or 3 * context // 4
        if answer >= context:
            raise UsageError(
                f"answer_tokens={answer} leaves no room for a prompt in context={context}; "
                f"type answer_tokens={3 * context // 4}"
            )
        return context, answer


@dataclass(frozen=True)
class Task:
    """The start, which is also the reference, and the pairs of each split."""

    reference: GPT
    tokenizer: Any
    answer: int
    train: Sequence[Pair]
    valid: Sequence[Pair]
    test: Sequence[Pair]


def prepare(
    run: Run,
    data: PreferenceData,
    most: tuple[int | None, int, int],
    base: str,
    shape: tuple[int, int, int],
    limits: Limits,
    started: bool,
    sft: SFTSettings,
    batch: int,
) -> Task:
    """The task of a run.

    Args:
        most: rows of each split, at most.
        base, shape: see `base_of`.
        started: begin after the supervised start; false for the run that makes it.
        sft: steps and learning rate of a start that is made on the spot.
        batch: pairs a step; UsageError when there are fewer.
    """

    def pairs_of(rows: Sequence[Preference], tokenizer: Any, model: GPT) -> list[Pair]:
        return encode(rows, tokenizer, *limits.of(model), limits.long)

    train_rows, valid_rows, test_rows = (
        split[:count]
        for split, count in zip((data.train, data.valid, data.test), most, strict=True)
    )
    encoded: list[list[Pair]] = []

    def training(tokenizer: Any, model: GPT) -> list[Pair]:
        """The training pairs, encoded once."""
        if not encoded:
            encoded.append(pairs_of(train_rows, tokenizer, model))
        return encoded[0]

    def the_base() -> tuple[GPT, Any]:
        return base_of(base, run, data, limits.context, shape)

    if started:
        reference, tokenizer = start_of(run, data, the_base, training, sft, batch)
    else:
        reference, tokenizer = the_base()
    train = training(tokenizer, reference)
    valid, test = (pairs_of(rows, tokenizer, reference) for rows in (valid_rows, test_rows))
    check_batch_size(len(train), batch)
    return Task(reference, tokenizer, limits.of(reference)[1], train, valid, test)
