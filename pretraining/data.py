"""A text as one row of tokens, and the batches cut from it.

A model that sees the tokens up to position t has to predict token t + 1. So the targets are the
inputs shifted by one, and every position of a window is an example.

Letters: B windows in a batch, T tokens in a window (the context).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from labkit import UsageError, exercise
from labkit.data import batch_indices


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> Tensor:
    """Tokens of a text, int64 (n,). Encoded line by line: byte pairs never cross a line end.

    Letters that spell a special token, such as <|endoftext|>, are encoded as letters, so a text
    cannot contain an END token.
    """
    backend = tokenizer.backend_tokenizer
    before, backend.encode_special_tokens = backend.encode_special_tokens, True
    lines = backend.encode_batch_fast(text.splitlines(keepends=True), add_special_tokens=False)
    backend.encode_special_tokens = before
    return torch.tensor([token for line in lines for token in line.ids], dtype=torch.int64)


@exercise(minutes=10)
def inputs_and_targets(
    tokens: Tensor, starts: Tensor, length: int, shift: int = 1
) -> tuple[Tensor, Tensor]:
    """Windows of a text, and for each of their tokens the one that follows.

    Args:
        tokens: (n,).
        starts: int64 (B,), positions at which the windows begin, on the device of the tokens.
        length: T.
        shift: distance from an input to its target; 1 in training.
    Returns:
        inputs (B, T), whose row b is tokens[starts[b]], tokens[starts[b] + 1], ...; and targets
        (B, T), the same windows moved by `shift`.
    """
    positions = starts[:, None] + torch.arange(length, device=starts.device)
    return tokens[positions], tokens[positions + shift]


def count_windows(tokens: Tensor, length: int) -> int:
    """How many windows side by side fit into a text, wherever the first one begins.

    Raises UsageError when there is none.
    """
    windows = (len(tokens) - length) // length
    if windows < 1:
        raise UsageError(
            f"the training text has {len(tokens)} tokens, too few for a window of {length}; "
            "try a smaller context"
        )
    return windows


def sample_batch(
    tokens: Tensor, length: int, batch_size: int, step: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Batch number `step`, a pure function of (seed, step): see `inputs_and_targets`.

    An epoch cuts the text into windows side by side and uses each once, in random order. The start
    of the first window is drawn anew for every epoch, so the cuts differ.

    Raises UsageError as `count_windows` does.
    """
    windows = count_windows(tokens, length)
    if windows < batch_size:  # so little text that windows must overlap
        generator = np.random.default_rng((seed, step))
        starts = generator.integers(len(tokens) - length, size=batch_size)
    else:
        epoch = step // (windows // batch_size)
        offset = np.random.default_rng((seed, epoch, 1)).integers(length)
        starts = offset + length * batch_indices(windows, batch_size, step, seed)
    return inputs_and_targets(tokens, torch.from_numpy(starts).to(tokens.device), length)
