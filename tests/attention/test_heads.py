"""Heads against nn.MultiheadAttention, grouped queries against enable_gqa, backends against each
other.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import MultiHeadAttention, alibi_bias, heads
from attention.heads import attend, merge_heads

BACKENDS = ["naive", "tiled", "sdpa"]


def grouped(queries: int = 6, keys: int = 6, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """q with 4 heads; k and v with fewer."""
    g = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, queries, 8, generator=g),
        torch.randn(2, kv_heads, keys, 8, generator=g),
        torch.randn(2, kv_heads, keys, 8, generator=g),
    )


@pytest.mark.exercise("heads.split_heads")
def test_split_heads_gives_each_head_its_own_columns() -> None:
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    split = heads.split_heads(x, 3)
    assert split.shape == (2, 3, 5, 4)
    for h in range(3):
        assert torch.equal(split[:, h], x[:, :, 4 * h : 4 * h + 4])


@pytest.mark.exercise("heads.split_heads")
def test_split_heads_of_one_head() -> None:
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(heads.split_heads(x, 1)[:, 0], x)


@pytest.mark.exercise("heads.split_heads")
@pytest.mark.parametrize(
    ("shape", "number"), [((1, 1, 6), 2), ((3, 3, 9), 3), ((1, 4, 4), 4), ((2, 1, 8), 1)]
)
def test_split_heads_of_short_and_square_inputs(shape: tuple[int, ...], number: int) -> None:
    """Also of a view that is not contiguous: every second position of a longer sequence."""
    batch, length, width = shape
    x = torch.arange(2.0 * batch * length * width).view(batch, 2 * length, width)[:, ::2]
    split = heads.split_heads(x, number)
    assert split.shape == (batch, number, length, width // number)
    for h, part in enumerate(x.split(width // number, dim=2)):
        assert torch.equal(split[:, h], part)
    leaf = x.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(heads.split_heads(leaf, number), leaf, split)[0], x)


def test_merging_undoes_splitting() -> None:
    x = torch.randn(2, 5, 12)
    assert torch.equal(merge_heads(heads.split_heads(x, 3)), x)


@pytest.mark.exercise("heads.repeat_kv")
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_repeat_kv_gives_neighbouring_heads_the_same_pair(kv_heads: int) -> None:
    """PyTorch's enable_gqa is the oracle: it shares keys and values the same way."""
    q, k, v = grouped(kv_heads=kv_heads)
    times = 4 // kv_heads
    ours = F.scaled_dot_product_attention(q, heads.repeat_kv(k, times), heads.repeat_kv(v, times))
    theirs = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.exercise("heads.repeat_kv")
def test_repeat_kv_in_order() -> None:
    x = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 5, 4)
    repeated = heads.repeat_kv(x, 2)
    assert repeated.shape == (2, 6, 5, 4)
    assert repeated[0, :, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.exercise("heads.repeat_kv")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 2, 2), (1, 3, 4, 2)])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_head_h_gets_pair_h_over_times(shape: tuple[int, ...], times: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    repeated = heads.repeat_kv(x, times)
    assert repeated.shape == (shape[0], shape[1] * times, *shape[2:])
    for h in range(repeated.shape[1]):
        assert torch.equal(repeated[:, h], x[:, h // times])
    assert (torch.autograd.grad(repeated.sum(), x)[0] == times).all()


@pytest.mark.exercise("heads.repeat_kv")
def test_nothing_is_copied_where_every_head_has_its_own_pair() -> None:
    x = torch.ones(1, 2, 3, 4)
    assert heads.repeat_kv(x, 1) is x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attend_is_torchs_with_enable_gqa(backend: Any, causal: bool, kv_heads: int) -> None:
    """Values and gradients, in the one case where all conventions agree: equal lengths."""
    found = []
    for ours in (True, False):
        leaves = [x.requires_grad_() for x in grouped(kv_heads=kv_heads)]
        if ours:
            out = attend(*leaves, causal=causal, backend=backend)
        else:
            out = F.scaled_dot_product_attention(*leaves, is_causal=causal, enable_gqa=True)
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("queries", "keys"), [(1, 7), (3, 7), (7, 7), (7, 3)])
@pytest.mark.parametrize("alibi", [False, True])
def test_backends_align_causal_at_the_last_key(
    backend: Any, queries: int, keys: int, alibi: bool
) -> None:
    q, k, v = grouped(queries, keys, kv_heads=4)
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.0]) if alibi else None
    out = attend(q, k, v, causal=True, slopes=slopes, backend=backend)
    bias = alibi_bias(torch.zeros(4) if slopes is None else slopes, queries, keys)
    for i in range(queries):
        seen = keys - queries + i + 1  # keys up to the query's own position
        if seen <= 0:
            assert not out[:, :, i].any()
            continue
        scores = (q[:, :, i : i + 1] @ k[:, :, :seen].mT) / 8**0.5 + bias[:, i : i + 1, :seen]
        torch.testing.assert_close(
            out[:, :, i : i + 1], scores.softmax(-1) @ v[:, :, :seen], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_and_rows_with_no_key(backend: Any) -> None:
    """Two sequences, one padded at its end, the other nothing but padding."""
    lengths = torch.tensor([4, 0])
    mask = (torch.arange(6) < lengths[:, None])[:, None, None]  # (B, 1, 1, Tk)
    leaves = [x.requires_grad_() for x in grouped()]
    out = attend(*leaves, mask=mask, backend=backend)
    expected = F.scaled_dot_product_attention(
        leaves[0][:1], leaves[1][:1, :, :4], leaves[2][:1, :, :4], enable_gqa=True
    )
    torch.testing.assert_close(out[:1], expected, atol=1e-5, rtol=1e-5)
    assert not out[1].any()
    for grad in torch.autograd.grad(out.sum(), leaves):
        assert grad.isfinite().all()
        assert not grad[1].any()


def same_weights(bias: bool) -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, bias=bias, batch_first=True)
    ours = MultiHeadAttention(16, 4, bias=bias)
    state = {"out.weight": theirs.out_proj.weight}
    for name, weight in zip("qkv", theirs.in_proj_weight.chunk(3), strict=True):
        state[f"{name}.weight"] = weight
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
        nn.init.normal_(theirs.out_proj.bias)
        state["out.bias"] = theirs.out_proj.bias
        for name, vector in zip("qkv", theirs.in_proj_bias.chunk(3), strict=True):
            state[f"{name}.bias"] = vector
    ours.load_state_dict(state)
    return ours, theirs


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_nn_multihead_attention(bias: bool, causal: bool) -> None:
    ours, theirs = same_weights(bias)
    x = torch.randn(2, 7, 16)
    # True in its mask means left out: the opposite of ours
    future = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(x, x, x, attn_mask=future, average_attn_weights=False)
    torch.testing.assert_close(ours(x, causal=causal), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.maps(x, causal=causal), weights, atol=1e-5, rtol=1e-5)


def test_cross_attention_with_padding_is_nn_multihead_attention() -> None:
    ours, theirs = same_weights(bias=True)
    x, context = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    expected, _ = theirs(x, context, context, key_padding_mask=padding)
    found = ours(x, context, mask=~padding[:, None, None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_backends_agree_and_maps_are_what_they_use(positions: Any, kv_heads: int) -> None:
    outputs = []
    x = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(1))
    for backend in BACKENDS:
        torch.manual_seed(0)
        layer = MultiHeadAttention(16, 4, kv_heads, positions, backend)  # type: ignore[arg-type]
        assert layer.k.weight.shape == (4 * kv_heads, 16)
        outputs.append(layer(x, causal=True))
    values = heads.repeat_kv(heads.split_heads(layer.v(x), kv_heads), 4 // kv_heads)
    outputs.append(layer.out(merge_heads(layer.maps(x, causal=True) @ values)))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], atol=1e-5, rtol=1e-5)


def test_bf16_autocast_stays_near_fp32() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 9, 16)
    for backend in BACKENDS:
        layer = MultiHeadAttention(16, 4, backend=backend)  # type: ignore[arg-type]
        exact = layer(x, causal=True)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(x, causal=True)
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), exact, atol=5e-2, rtol=5e-2)
        rounded.sum().backward()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"heads": 3}, "heads must divide d_model: 16 / 3 is not whole"),
        ({"heads": 0}, "heads must divide d_model"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must divide heads: 4 / 3 is not whole"),
        ({"heads": 16, "positions": "rotary"}, "a head has 1 dimensions"),
    ],
)
def test_shapes_that_do_not_divide_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(16, **words)


def test_other_bad_input_is_refused_in_words() -> None:
    q, k, v = grouped()
    with pytest.raises(ValueError, match="choose naive, tiled or sdpa"):
        attend(q, k, v, backend="flash")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a mask is boolean"):
        attend(q, k, v, mask=torch.zeros(6, 6))
    layer = MultiHeadAttention(16, 4, positions="rotary")
    x = torch.randn(2, 3, 16)
    with pytest.raises(ValueError, match="neither a cache nor rotary or ALiBi"):
        layer(x, context=x)
    plain = MultiHeadAttention(16, 4)
    cache = plain.new_cache(2, 3)
    with pytest.raises(ValueError, match="neither a cache"):
        plain(x, context=x, cache=cache)
