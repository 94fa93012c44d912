"""Shift and mask by hand-written tables; batches by counting what is in them."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from transformers_lab import Batches, Corpus, batches, count_words, learn
from transformers_lab.bpe import BOS, EOS, PAD

ROWS = torch.tensor([[BOS, 7, 8, 9, EOS], [BOS, 6, EOS, PAD, PAD]])


def corpus(count: int = 300, seed: int = 0) -> Corpus:
    """Pairs of random lengths."""
    rng = random.Random(seed)
    pairs = [
        tuple(" ".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(2))
        for _ in range(count)
    ]
    return Corpus(pairs, learn(count_words(s for pair in pairs for s in pair), 20))  # type: ignore[arg-type]


def padding_share(*tokens: Tensor) -> float:
    """How much of these rectangles is padding."""
    return sum(int((t == PAD).sum()) for t in tokens) / sum(t.numel() for t in tokens)


@pytest.mark.exercise("batches.shift")
def test_each_label_is_the_token_after_its_input() -> None:
    inputs, labels = batches.shift(ROWS)
    assert inputs.tolist() == [[BOS, 7, 8, 9], [BOS, 6, EOS, PAD]]
    assert labels.tolist() == [[7, 8, 9, EOS], [6, EOS, PAD, PAD]]


@pytest.mark.exercise("batches.shift")
def test_shift_of_one_empty_sentence_and_of_one_type() -> None:
    inputs, labels = batches.shift(torch.tensor([[BOS, EOS]], dtype=torch.int32))
    assert (inputs.tolist(), labels.tolist()) == ([[BOS]], [[EOS]])
    assert (inputs.dtype, labels.dtype) == (torch.int32, torch.int32)


@pytest.mark.exercise("batches.shift")
def test_shift_leaves_the_sentences_as_they_are() -> None:
    given = ROWS.clone()
    for part in batches.shift(given):
        assert part.shape == (2, 4)
    assert torch.equal(given, ROWS)
    assert [part.device.type for part in batches.shift(ROWS.to("meta"))] == ["meta", "meta"]


@pytest.mark.exercise("batches.padding_mask")
def test_mask_is_true_at_tokens() -> None:
    mask = batches.padding_mask(ROWS)
    assert mask.shape == (2, 1, 1, 5)
    assert mask.dtype == torch.bool
    assert mask[:, 0, 0].tolist() == [[True] * 5, [True, True, True, False, False]]


@pytest.mark.exercise("batches.padding_mask")
@pytest.mark.parametrize("token", range(9))
def test_padding_is_one_token_and_no_other(token: int) -> None:
    given = torch.tensor([[token]])
    mask = batches.padding_mask(given)
    assert mask.shape == (1, 1, 1, 1)
    assert mask.item() is (token != PAD)
    assert given.item() == token


@pytest.mark.exercise("batches.padding_mask")
def test_mask_is_made_where_the_tokens_are() -> None:
    mask = batches.padding_mask(ROWS.to("meta"))
    assert (mask.device.type, mask.shape) == ("meta", (2, 1, 1, 5))


@pytest.mark.exercise("batches.padding_mask")
def test_mask_hides_the_padding_from_attention() -> None:
    """Whatever stands at padded keys, the output is that of the sentence alone."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4, generator=g) for _ in range(3))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=batches.padding_mask(ROWS))
    alone = F.scaled_dot_product_attention(q[1:], k[1:, :, :3], v[1:, :, :3])
    torch.testing.assert_close(out[1:], alone)


def test_rows_hold_their_sentences_and_no_wider_padding() -> None:
    data = corpus()
    chosen = np.array([5, 17, 200])
    source, target = data.rows(chosen)
    lengths = data.lengths[chosen]
    assert source.shape == (3, lengths[:, 0].max())
    assert target.shape == (3, lengths[:, 1].max() + 1)
    for row, (s, t) in enumerate(lengths):
        assert source[row, s - 1] == EOS
        assert (source[row, s:] == PAD).all()
        assert (source[row, :s] != PAD).all()
        assert target[row, 0] == BOS
        assert target[row, t] == EOS
        assert (target[row, t + 1 :] == PAD).all()
        assert (target[row, : t + 1] != PAD).all()


def test_a_pass_holds_every_pair_once_within_the_tokens() -> None:
    data = corpus()
    made = Batches(data, tokens=200, seed=3)
    for epoch in (0, 1):
        seen = []
        for step in range(epoch * len(made), (epoch + 1) * len(made)):
            source, target = made[step]
            assert source.numel() + target[:, 1:].numel() <= 200
            seen += [
                (tuple(s[s != PAD].tolist()), tuple(t[t != PAD].tolist()))
                for s, t in zip(source, target, strict=True)
            ]
        everything = [
            (tuple(s[s != PAD].tolist()), tuple(t[t != PAD].tolist()))
            for s, t in zip(data.source, data.target, strict=True)
        ]
        assert sorted(seen) == sorted(everything)


def test_batches_are_a_function_of_seed_and_step() -> None:
    data = corpus()
    first, again, other = Batches(data, 200, 3), Batches(data, 200, 3), Batches(data, 200, 4)
    steps = [0, len(first) + 2, 1, 2 * len(first), len(first) + 2]
    assert all(torch.equal(first[s][0], again[s][0]) for s in reversed(steps))
    assert torch.equal(first[2][1], again[2][1])
    whole = range(len(first))
    assert any(not torch.equal(first[s][0], other[s][0]) for s in whole)
    assert any(not torch.equal(first[s][0], first[s + len(first)][0]) for s in whole)


def test_like_lengths_need_little_padding() -> None:
    data = corpus(2000)
    made = Batches(data, 500, 0)
    sorted_share = np.mean([padding_share(*made[s]) for s in range(len(made))])
    mixed = np.array_split(np.arange(len(data)), len(made))
    mixed_share = np.mean([padding_share(*data.rows(rows)) for rows in mixed])
    assert sorted_share < mixed_share / 2


def test_a_pair_larger_than_a_batch_is_one_alone() -> None:
    data = corpus(20)
    made = Batches(data, 3, 0)
    assert len(made) == 20
    assert sum(len(made[s][0]) for s in range(20)) == 20
