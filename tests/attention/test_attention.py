"""Equation 1 against PyTorch's own attention, against loops, and where it meets empty rows."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attention import attention

Inputs = tuple[Tensor, Tensor, Tensor]


def inputs(
    queries: int = 5, keys: int = 5, dim: int = 8, dtype: torch.dtype = torch.float32
) -> Inputs:
    """q, k and v for 2 sequences and 3 heads."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 3, t, dim, generator=g, dtype=torch.float64) for t in (queries, keys, keys)
    )
    return q.to(dtype), k.to(dtype), v.to(dtype)


def random_mask(queries: int, keys: int) -> Tensor:
    """True for about half of the pairs, and for at least one key of each query."""
    mask = torch.rand(2, 1, queries, keys, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., 0] = True
    return mask


def past_by_loops(queries: int, keys: int) -> Tensor:
    """The rule in words: the queries are the last positions, and see no later position."""
    mask = torch.zeros(queries, keys, dtype=torch.bool)
    for i in range(queries):
        for j in range(keys):
            mask[i, j] = j <= keys - queries + i
    return mask


def by_loops(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> list[list[float]]:
    """Equation 1 in Python numbers: q (Tq, d), k and v (Tk, d), mask (Tq, Tk)."""
    out = []
    for i, query in enumerate(q.tolist()):
        e = [
            math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query)))
            if mask[i, j] else 0.0
            for j, key in enumerate(k.tolist())
        ]  # fmt: skip
        out.append([sum(p * x for p, x in zip(e, column, strict=True)) / sum(e)
                    for column in v.T.tolist()])  # fmt: skip
    return out


def gradients(function: Any, tensors: Inputs) -> list[Tensor]:
    """Output and gradients for a random direction."""
    leaves = [x.clone().requires_grad_() for x in tensors]
    out = function(*leaves)
    g = torch.Generator().manual_seed(2)
    direction = torch.randn(out.shape, generator=g, dtype=torch.float64).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, direction)]


@pytest.mark.exercise("attention.causal_mask")
@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (3, 7), (6, 2), (1, 1)])
def test_causal_mask_is_aligned_at_the_last_key(queries: int, keys: int) -> None:
    mask = attention.causal_mask(queries, keys)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, past_by_loops(queries, keys))


@pytest.mark.exercise("attention.causal_mask")
def test_causal_mask_is_made_where_it_is_asked_for() -> None:
    assert attention.causal_mask(2, 3, device="meta").device == torch.device("meta")
    expected = past_by_loops(2, 3)
    with torch.device("meta"):  # the default device is another
        here, there = attention.causal_mask(2, 3, torch.device("cpu")), attention.causal_mask(2, 3)
    assert torch.equal(here, expected)
    assert there.device == torch.device("meta")


@pytest.mark.exercise("attention.causal_mask")
def test_causal_mask_of_equal_lengths_is_torchs() -> None:
    """Where the lengths are equal there is only one corner, so is_causal can be the oracle."""
    q, k, v = inputs()
    mask = attention.causal_mask(5, 5)
    ours = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_torchs_causal_is_aligned_at_the_first_key() -> None:
    """Why `attend` makes its own mask: one new query would see the first key and nothing else."""
    q, k, v = inputs(queries=1)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(theirs, v[:, :, :1])
    ours, _ = attention.scaled_dot_product_attention(q, k, v, causal=True)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v))


@pytest.mark.exercise("attention.scaled_dot_product_attention")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)],
    ids=["fp32", "bf16", "fp16"],
)
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_are_torchs(
    dtype: torch.dtype, tolerance: float, masked: bool
) -> None:
    tensors = inputs(5, 7, dtype=dtype)
    mask = random_mask(5, 7) if masked else None
    ours = gradients(
        lambda q, k, v: attention.scaled_dot_product_attention(q, k, v, mask)[0], tensors
    )
    # In bf16 both round on the way, so the oracle computes in float64 from the same numbers.
    exact = tuple(x.double() for x in tensors)
    theirs = gradients(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask), exact
    )
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, atol=tolerance * float(b.abs().max()), rtol=0)


@pytest.mark.exercise("attention.scaled_dot_product_attention")
def test_values_are_equation_1() -> None:
    q, k, v = inputs(4, 6, dtype=torch.float64)
    mask = random_mask(4, 6)
    out, weights = attention.scaled_dot_product_attention(q, k, v, mask)
    for b in range(2):
        for h in range(3):
            expected = torch.tensor(by_loops(q[b, h], k[b, h], v[b, h], mask[b, 0]))
            torch.testing.assert_close(out[b, h], expected.double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 4, dtype=torch.float64))
    torch.testing.assert_close(weights @ v, out)
    assert not weights.masked_select(~mask.expand_as(weights)).any()


@pytest.mark.exercise("attention.scaled_dot_product_attention")
def test_bias_and_scale_are_torchs() -> None:
    q, k, v = inputs(5, 7)
    bias = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(3))
    out, _ = attention.scaled_dot_product_attention(q, k, v, scale=0.7, bias=bias)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.7)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.exercise("attention.scaled_dot_product_attention")
@pytest.mark.parametrize("scale", [0.0, -1.0, None])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 1, 7), (5, 1), (1, 1, 1, 1)])
def test_bias_mask_and_scale_together(scale: float | None, shape: tuple[int, ...]) -> None:
    """The bias is learned too; masked keys are left out of its gradient."""
    tensors, mask = inputs(5, 7), random_mask(5, 7)
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    leaves = [x.clone().requires_grad_() for x in (*tensors, bias)]
    twins = [x.clone().requires_grad_() for x in (*tensors, bias)]
    q, k, v, b = leaves
    out, weights = attention.scaled_dot_product_attention(q, k, v, mask, scale=scale, bias=b)
    added = twins[3].expand(2, 3, 5, 7).masked_fill(~mask, -torch.inf)
    expected = F.scaled_dot_product_attention(*twins[:3], attn_mask=added, scale=scale)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights @ v, out)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad(out, leaves, direction, retain_graph=True)
    for a, c in zip(found, torch.autograd.grad(expected, twins, direction), strict=True):
        torch.testing.assert_close(a, c, atol=1e-5, rtol=1e-5)
    assert weights.square().sum().requires_grad, "the weights can be trained on as well"


@pytest.mark.exercise("attention.scaled_dot_product_attention")
@pytest.mark.parametrize("masked", [False, True])
def test_scores_in_the_thousands_do_not_overflow(masked: bool) -> None:
    q, k, v = inputs(5, 7)
    mask = random_mask(5, 7) if masked else None
    out, weights = attention.scaled_dot_product_attention(1000 * q, k, v, mask)
    expected = F.scaled_dot_product_attention(1000 * q.double(), k.double(), v.double(), mask)
    torch.testing.assert_close(out, expected.float(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3, 5))


@pytest.mark.exercise("attention.scaled_dot_product_attention")
@pytest.mark.parametrize("level", [-3e4, -3e9, -1e30])
def test_a_masked_key_counts_for_nothing_beside_very_low_scores(level: float) -> None:
    """A bias that lowers a whole row changes nothing, masked keys included."""
    q, k, v = inputs(3, 3)
    mask = past_by_loops(3, 3)
    out, weights = attention.scaled_dot_product_attention(
        q, k, v, mask, scale=0.0, bias=torch.full((3, 3), level)
    )
    expected = mask / mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(weights, expected.expand(2, 3, 3, 3))
    torch.testing.assert_close(out, expected @ v)


@pytest.mark.exercise("attention.scaled_dot_product_attention")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 4, 1), (1, 2, 1, 5)])
def test_lengths_of_one_and_values_of_another_width(shape: tuple[int, ...]) -> None:
    batch, number, queries, keys = shape
    g = torch.Generator().manual_seed(0)
    q = torch.randn(batch, number, queries, 4, generator=g)
    k, v = (torch.randn(batch, number, keys, d, generator=g) for d in (4, 3))
    mask = torch.ones(queries, keys, dtype=torch.bool)
    given = (q, k, v, mask)
    before = [x.clone() for x in given]
    out, weights = attention.scaled_dot_product_attention(*given)
    torch.testing.assert_close(out, F.scaled_dot_product_attention(q, k, v))
    assert weights.shape == shape
    assert all(map(torch.equal, given, before)), "the arguments are left alone"


@pytest.mark.exercise("attention.scaled_dot_product_attention")
def test_causal_joins_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the default device is another than that of the queries."""

    def past_of(queries: int, keys: int, device: Any = None) -> Tensor:
        here = torch.get_default_device() if device is None else device
        with torch.device("cpu"):
            return past_by_loops(queries, keys).to(here)

    monkeypatch.setattr(attention, "causal_mask", past_of)
    q, k, v = inputs(4, 6)
    past, mask = past_by_loops(4, 6), random_mask(4, 6)
    before = mask.clone()
    for given, expected in ((None, past), (mask, mask & past)):
        theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=expected)
        for device in ("cpu", "meta"):
            with torch.device(device):
                out, _ = attention.scaled_dot_product_attention(q, k, v, given, causal=True)
            torch.testing.assert_close(out, theirs, atol=1e-5, rtol=1e-5)
    assert torch.equal(mask, before), "the mask given is left alone"


@pytest.mark.exercise("attention.scaled_dot_product_attention")
def test_a_query_that_may_attend_nowhere_gets_0_and_gives_no_nan() -> None:
    tensors = inputs(3, 4)
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1] = False
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        out, dq, dk, dv = gradients(
            lambda q, k, v: attention.scaled_dot_product_attention(q, k, v, mask)[0], tensors
        )
    weights = attention.scaled_dot_product_attention(*tensors, mask)[1]
    assert not out[:, :, 1].any()
    assert not weights[:, :, 1].any()
    assert not dq[:, :, 1].any()
    assert dq[:, :, 0].any()
    assert dk.isfinite().all()
    assert dv.isfinite().all()


@pytest.mark.exercise("attention.scaled_dot_product_attention")
def test_an_additive_mask_is_refused() -> None:
    q, k, v = inputs()
    for mask in (torch.zeros(5, 5), torch.ones(5, 5, dtype=torch.uint8)):
        for causal in (False, True):
            with pytest.raises(ValueError):
                attention.scaled_dot_product_attention(q, k, v, mask, causal)


def test_an_additive_mask_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"boolean, True where a query may attend; got torch\.fl"):
        attention.check_mask(torch.zeros(5, 5))


@pytest.mark.parametrize("dim", [4, 64])
def test_scaled_scores_have_unit_variance_whatever_the_dimension(dim: int) -> None:
    """Section 3.2.1, footnote 4: q · k has variance d_k, so it is divided by √d_k."""
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 300, dim, generator=g) for _ in range(2))
    weights = attention.scaled_dot_product_attention(q, k, k)[1]
    scores = weights.log() - weights.log().mean(dim=-1, keepdim=True)
    assert scores.var().item() == pytest.approx(1, rel=0.1)


def test_entropy_of_equal_weights_and_of_one() -> None:
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert attention.entropy(weights).tolist() == pytest.approx([math.log(4), 0, math.log(2)])
