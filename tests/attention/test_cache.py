"""The cache against torch.cat, and generation with it against a forward pass over everything."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from attention import KVCache, MultiHeadAttention, Transformer


def pieces(lengths: list[int], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (2, 3, T, 4) for each length."""
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(2, 3, t, 4, generator=g), torch.randn(2, 3, t, 4, generator=g))
        for t in lengths
    ]


@pytest.mark.exercise("cache.KVCache.append")
def test_append_is_concatenation() -> None:
    cache = KVCache(batch=2, heads=3, capacity=9, dim=4)
    given = pieces([4, 1, 1, 3])
    for i in range(len(given)):
        k, v = cache.append(*given[i])
        assert torch.equal(k, torch.cat([k for k, _ in given[: i + 1]], dim=2))
        assert torch.equal(v, torch.cat([v for _, v in given[: i + 1]], dim=2))
        assert cache.length == k.shape[2]


@pytest.mark.exercise("cache.KVCache.append")
def test_append_copies_nothing_back() -> None:
    cache = KVCache(batch=2, heads=3, capacity=9, dim=4)
    k, v = cache.append(*pieces([2])[0])
    assert k.untyped_storage().data_ptr() == cache.keys.untyped_storage().data_ptr()
    assert v.untyped_storage().data_ptr() == cache.values.untyped_storage().data_ptr()


@pytest.mark.exercise("cache.KVCache.append")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_append_writes_into_the_memory_that_was_taken(dtype: torch.dtype) -> None:
    """The same tensors before and after; what is not filled stays; k and v stay what they were."""
    cache = KVCache(batch=1, heads=1, capacity=6, dim=2, dtype=dtype)
    keys, values = cache.keys, cache.values
    g = torch.Generator().manual_seed(0)
    k, v = (torch.randn(1, 1, 4, 2, generator=g) for _ in range(2))
    before = k.clone(), v.clone()
    cache.append(k[:, :, :3], v[:, :, :3])
    ks, vs = cache.append(k[:, :, 3:], v[:, :, 3:])  # a single one
    nothing = cache.append(k[:, :, :0], v[:, :, :0])
    assert cache.keys is keys
    assert cache.values is values
    assert cache.length == 4
    for filled, taken, given in ((ks, keys, k), (vs, values, v)):
        assert filled.dtype == dtype
        assert torch.equal(filled, given.to(dtype))
        assert torch.equal(taken[:, :, :4], given.to(dtype))
        assert not taken[:, :, 4:].any()
    assert torch.equal(nothing[0], ks)
    assert torch.equal(k, before[0])
    assert torch.equal(v, before[1])


@pytest.mark.exercise("cache.KVCache.append")
@pytest.mark.parametrize(
    ("k", "v"),
    [
        ((1, 3, 1, 4), (1, 3, 1, 4)),
        ((2, 3, 1, 4), (1, 3, 1, 4)),
        ((2, 1, 1, 4), (2, 1, 1, 4)),
        ((2, 3, 1, 1), (2, 3, 1, 1)),
        ((2, 3, 1, 4), (2, 3, 1, 1)),
        ((2, 3, 2, 4), (2, 3, 1, 4)),
        ((2, 3, 1, 4), (2, 3, 2, 4)),
        ((3, 1, 4), (3, 1, 4)),
        ((2, 3, 4, 4), (2, 3, 4, 4)),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    k: tuple[int, ...], v: tuple[int, ...]
) -> None:
    """Assignment would broadcast a length of one. The message is that of `misfit`, as promised."""
    cache = KVCache(batch=2, heads=3, capacity=5, dim=4)
    cache.append(*pieces([2])[0])
    kept = cache.keys.clone(), cache.values.clone()
    with pytest.raises(ValueError) as refused:
        cache.append(torch.ones(k), torch.ones(v))
    assert str(refused.value) == cache.misfit(torch.ones(k), torch.ones(v)) != ""
    assert cache.length == 2
    assert torch.equal(cache.keys, kept[0])
    assert torch.equal(cache.values, kept[1])


@pytest.mark.exercise("cache.KVCache.append")
def test_overflow_is_refused_and_changes_nothing() -> None:
    cache = KVCache(batch=2, heads=3, capacity=5, dim=4)
    first, second, last = pieces([4, 2, 1])
    cache.append(*first)
    kept = cache.keys.clone()
    with pytest.raises(ValueError):
        cache.append(*second)
    assert cache.length == 4
    assert torch.equal(cache.keys, kept)
    k, _ = cache.append(*last)  # filled to the brim is not too full
    assert k.shape[2] == 5


def test_a_misfit_is_said_in_words() -> None:
    """What `append` raises, word for word."""
    cache = KVCache(batch=2, heads=3, capacity=5, dim=4)
    k, v = pieces([1])[0]
    assert "takes k of shape (2, 3, T, 4), got (1, 3, 1, 4)" in cache.misfit(k[:1], v[:1])
    assert "takes v of shape (2, 3, T, 4), got (2, 3, 1, 1)" in cache.misfit(k, v[..., :1])
    assert "1 keys came with 0 values" in cache.misfit(k, v[:, :, :0])
    cache.append(*pieces([4])[0])
    problem = cache.misfit(*pieces([2])[0])
    assert "holds 5 positions, 4 are filled and 2 more do not fit" in problem
    assert cache.misfit(k, v) == ""


def test_repeated_rows_follow_their_own() -> None:
    cache = KVCache(batch=2, heads=3, capacity=5, dim=4)
    (k, v), (more_k, more_v) = pieces([3])[0], pieces([2], seed=1)[0]
    cache.append(k, v)
    cache.repeat(3)
    keys, values = cache.append(more_k.repeat(3, 1, 1, 1), more_v.repeat(3, 1, 1, 1))
    assert keys.shape == values.shape == (6, 3, 5, 4)
    for row in range(6):
        assert torch.equal(keys[row], torch.cat([k[row // 3], more_k[row % 2]], dim=1))
        assert torch.equal(values[row], torch.cat([v[row // 3], more_v[row % 2]], dim=1))


def test_clear_begins_anew() -> None:
    cache = KVCache(batch=2, heads=3, capacity=4, dim=4)
    cache.append(*pieces([4])[0])
    cache.clear()
    k, v = pieces([2], seed=1)[0]
    assert torch.equal(cache.append(k, v)[0], k)


@pytest.mark.parametrize("backend", ["naive", "tiled", "sdpa"])
@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_decoding_with_the_cache_is_the_full_forward_pass(
    backend: str, positions: str, kv_heads: int
) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(16, 4, kv_heads, positions, backend)
    x = torch.randn(2, 9, 16)
    with torch.no_grad():
        whole = attention(x, causal=True)
        cache = attention.new_cache(batch=2, capacity=9)
        assert cache.keys.shape == (2, kv_heads, 9, 4)
        parts = [attention(p, causal=True, cache=cache) for p in x.split([4, 1, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "alibi", "none"])
def test_a_models_cached_logits_are_those_of_the_full_forward_pass(positions: str) -> None:
    torch.manual_seed(0)
    model = Transformer(11, 16, 4, 2, kv_heads=2, positions=positions)
    tokens = torch.randint(11, (3, 10))
    with torch.no_grad():
        whole = model(tokens)
        caches = model.new_caches(3, 10)
        parts = [model(p, caches) for p in tokens.split([5, 1, 1, 3], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match="10 are filled and 1 more do not fit"):
            model(tokens[:, :1], caches)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "alibi"])
def test_generation_with_and_without_the_cache_agrees(positions: str) -> None:
    torch.manual_seed(1)
    model = Transformer(11, 32, 4, 2, positions=positions)
    prompt = torch.randint(11, (4, 5))
    written = model.generate(prompt, 12)
    assert written.shape == (4, 12)
    assert torch.equal(written, model.generate(prompt, 12, use_cache=False))


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_positions_that_do_not_advance_are_noticed(
    positions: str, planted: Callable[[str], ModuleType]
) -> None:
    """broken_cache"""
    wrong = planted("model.Transformer.forward: the positions of new tokens start at 0")
    torch.manual_seed(0)
    model = wrong.Transformer(11, 16, 4, 2, positions=positions)
    tokens = torch.randint(11, (3, 6))
    with torch.no_grad():
        caches = model.new_caches(3, 6)
        model(tokens[:, :5], caches)
        assert not torch.allclose(model(tokens[:, 5:], caches), model(tokens)[:, 5:], atol=1e-2)
