"""Sentences to tensors: ids in memory, batches of similar lengths, shift and padding mask.

A batch is a rectangle, but sentences differ in length. Sorted by length, neighbours need hardly any
padding. A batch holds as many sentences as fit into a given number of tokens, so that every step
costs the same (Vaswani et al. 2017, section 5.1).

Letters: N sentences, B batch, S source tokens, T target tokens.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from labkit import exercise
from transformers_lab.bpe import BOS, BPE, EOS, PAD


@exercise(minutes=10)
def shift(target: Tensor) -> tuple[Tensor, Tensor]:
    """Decoder inputs and the labels to predict there: the same sentence, shifted by one token.

        target    <s> a  dog </s> PAD
        inputs    <s> a  dog </s>
        labels    a   dog </s> PAD

    Args:
        target: int64 (B, T + 1): BOS, the sentence, EOS, and PAD up to the longest.
    Returns:
        inputs and labels, each (B, T).
    """
    return target[:, :-1], target[:, 1:]


@exercise(minutes=10)
def padding_mask(tokens: Tensor) -> Tensor:
    """Which keys any query may attend to: True at tokens, False at padding.

    (`key_padding_mask` of nn.MultiheadAttention means the opposite.)

    Args:
        tokens: int64 (B, S).
    Returns:
        bool (B, 1, 1, S), to be broadcast over heads and queries.
    """
    return (tokens != PAD)[:, None, None, :]


class Corpus:
    """All pairs of a split as ids, padded to the longest: two int64 tensors on the same device."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], bpe: BPE, device: torch.device | str = "cpu"
    ) -> None:
        """Sources end with EOS; targets begin with BOS and end with EOS."""
        sources = [[*bpe.encode(a), EOS] for a, _ in pairs]
        targets = [[BOS, *bpe.encode(b), EOS] for _, b in pairs]
        self.lengths = np.array(
            [[len(a), len(b) - 1] for a, b in zip(sources, targets, strict=True)]
        )
        self.source, self.target = (_rectangle(rows).to(device) for rows in (sources, targets))

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """source (B, S) and target (B, T + 1) of these pairs, cut to their longest."""
        source, target = self.lengths[indices].max(axis=0)
        chosen = torch.from_numpy(indices).to(self.source.device)
        return self.source[chosen, :source], self.target[chosen, : target + 1]

    def cuts(self, tokens: int) -> list[tuple[int, int]]:
        """Where to cut the sorted pairs into batches of at most `tokens` tokens: [begin, end) each.

        Counted with padding, source and target together. A larger pair is a batch of its own.
        """
        return list(self._cuts(self.lengths[self.order(None)], tokens))

    @staticmethod
    def _cuts(lengths: np.ndarray, tokens: int) -> Iterator[tuple[int, int]]:
        begin, longest = 0, lengths[0]
        for i, both in enumerate(lengths):
            longest = np.maximum(longest, both)
            if i > begin and (i + 1 - begin) * longest.sum() > tokens:
                yield begin, i
                begin, longest = i, both
        yield begin, len(lengths)

    def order(self, rng: np.random.Generator | None) -> np.ndarray:
        """Indices sorted by the length of target and source; equally long ones at random."""
        ties = np.arange(len(self)) if rng is None else rng.permutation(len(self))
        return np.lexsort((ties, self.lengths[:, 0], self.lengths[:, 1]))

    @cached_property
    def sorted(self) -> np.ndarray:
        """Indices from short to long, always the same: for measuring."""
        return self.order(None)


class Batches:
    """Training batches of about `tokens` tokens each: a pure function of (seed, step)."""

    def __init__(self, corpus: Corpus, tokens: int, seed: int) -> None:
        self.corpus, self.seed = corpus, seed
        self.cuts = corpus.cuts(tokens)
        self._epoch: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches of one pass; the same in every pass, since the sorted lengths are."""
        return len(self.cuts)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """source (B, S) and target (B, T + 1) of a step."""
        epoch, position = divmod(step, len(self))
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._epoch = epoch, self.corpus.order(rng), rng.permutation(len(self))
        _, order, places = self._epoch
        begin, end = self.cuts[places[position]]
        return self.corpus.rows(order[begin:end])


def _rectangle(rows: Sequence[Sequence[int]]) -> Tensor:
    """int64 (N, longest), PAD behind each row."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
