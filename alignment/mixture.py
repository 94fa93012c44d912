"""Training and held-out examples: instructions, and a share of checkable commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignment.chat import Example, encode
from labkit import UsageError
from labkit.show.console import say

if TYPE_CHECKING:
    from labkit.data import Instruction, InstructionData


@dataclass(frozen=True)
class Mixture:
    """Training examples, held-out examples of the named set only, and rows of both test sets."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    test_rows: "Sequence[Instruction]"
    commands: "InstructionData"
    context: int
    """The most tokens that an example has."""


def mix(
    data: "InstructionData",
    commands: "InstructionData",
    share: float,
    tokenizer: Any,
    context: int,
    batch_size: int,
) -> Mixture:
    """Encode all splits; rows longer than `context` are dropped, and their number is printed, as is
    the number of commands when there are too few for their share.

    Args:
        share: share of commands in the training rows; without effect if `data` is commands.
    Raises:
        UsageError when almost no row fits.
    """
    rows = {"train": list(data.train), "valid": list(data.valid), "test": list(data.test)}
    if data.name != commands.name:
        count = round(share / (1 - share) * len(data.train))
        chosen = commands.train[:count]  # their forms alternate: any number is balanced
        rows["train"] += chosen
        if len(chosen) < count:
            got = f"{len(chosen) / len(rows['train']):.1%} of the training rows"
            say(f"commands={share:g} asks for {count:,} commands, and there are {len(chosen):,}: "
                f"all are taken, {got}")  # fmt: skip
    kept: dict[str, list[Example]] = {}
    for split, found in rows.items():
        kept[split], dropped = encode(found, tokenizer, context)
        if dropped:
            say(f"{split}: {dropped:,} of {len(found):,} rows have more than {context} tokens "
                "and are left out")  # fmt: skip
        need = batch_size if split == "train" else 1
        if len(kept[split]) < need:
            raise UsageError(
                f"only {len(kept[split])} of {len(found)} {split} rows fit into context={context}; "
                "take a larger context, or a smaller batch_size"
            )
    return Mixture(kept["train"], kept["valid"], kept["test"], data.test, commands, context)
