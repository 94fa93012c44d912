"""Which tokens may be drawn, how often they are, and the same ones with the cache as without."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pretraining import GPT, Shape, generate, keep_top_k, keep_top_p
from pretraining.model import Architecture


def logits_of(*shares: float) -> torch.Tensor:
    return torch.tensor([shares]).log()


def kept(logits: torch.Tensor) -> list[list[bool]]:
    return (logits > -torch.inf).tolist()


@pytest.mark.exercise("sample.keep_top_k")
def test_top_k_keeps_the_k_largest_of_each_row() -> None:
    logits = torch.tensor([[0.1, 3.0, -2.0, 1.0], [5.0, 4.0, 6.0, 7.0]])
    out = keep_top_k(logits, 2)
    assert kept(out) == [[False, True, False, True], [False, False, True, True]]
    assert out[0, 1] == 3.0
    assert out[1, 2] == 6.0
    assert torch.equal(logits[0], torch.tensor([0.1, 3.0, -2.0, 1.0]))  # the input is left alone


@pytest.mark.exercise("sample.keep_top_k")
def test_top_k_keeps_ties_and_more_than_there_are() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 0.0]])
    assert kept(keep_top_k(logits, 2)) == [[True, True, True, False]]
    assert torch.equal(keep_top_k(logits, 9), logits)


SHAPES = [(6,), (1, 6), (4, 6), (2, 3, 6), (2, 1, 2, 6)]


@pytest.mark.exercise("sample.keep_top_k")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 2, 5, 6, 7])
def test_top_k_of_any_shape_row_by_row(shape: tuple[int, ...], k: int) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[..., 0] = -torch.inf  # cannot be drawn, before as after
    given = logits.clone()
    out = keep_top_k(logits, k)
    assert (out.shape, out.dtype) == (logits.shape, torch.float64)
    assert torch.equal(logits, given)
    for row, new in zip(logits.view(-1, 6).tolist(), out.view(-1, 6).tolist(), strict=True):
        best = sorted(row)[-k:]
        assert new == [x if x in best else -math.inf for x in row]
    leaf = logits.clone().requires_grad_()
    keep_top_k(leaf, k).masked_fill(out == -torch.inf, 0).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, (out > -torch.inf).double())


@pytest.mark.exercise("sample.keep_top_k")
def test_top_k_of_equal_logits_keeps_all_and_works_where_they_are() -> None:
    assert torch.equal(keep_top_k(torch.zeros(2, 5), 2), torch.zeros(2, 5))
    with FakeTensorMode() as fake, torch.device("cuda"):
        logits = torch.zeros(2, 5)
    with fake:
        assert keep_top_k(logits, 2).device.type == "cuda"


@pytest.mark.exercise("sample.keep_top_k")
@pytest.mark.parametrize("k", [1, 3, 50])
def test_top_k_is_hugging_faces(k: int) -> None:
    from transformers import TopKLogitsWarper

    logits = torch.randn(4, 60, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.exercise("sample.keep_top_p")
def test_top_p_keeps_the_token_that_crosses() -> None:
    logits = logits_of(0.1, 0.5, 0.15, 0.25)
    assert kept(keep_top_p(logits, 0.6)) == [[False, True, False, True]]
    assert kept(keep_top_p(logits, 0.4)) == [[False, True, False, False]]
    assert kept(keep_top_p(logits, 0.8)) == [[False, True, True, True]]
    torch.testing.assert_close(keep_top_p(logits, 0.6)[0, [1, 3]], logits[0, [1, 3]])


@pytest.mark.exercise("sample.keep_top_p")
def test_top_p_always_keeps_one_and_1_keeps_all() -> None:
    logits = logits_of(0.4, 0.3, 0.2, 0.1).repeat(2, 1)
    assert kept(keep_top_p(logits, 1e-9)) == [[True, False, False, False]] * 2
    assert kept(keep_top_p(logits, 1.0)) == [[True] * 4] * 2


@pytest.mark.exercise("sample.keep_top_p")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", [0.0, 0.3, 0.61, 0.95])
def test_top_p_of_any_shape_row_by_row(shape: tuple[int, ...], p: float) -> None:
    """The likeliest first, one after the other, until they have p; at least one."""
    logits = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[..., 0] = -torch.inf  # cannot be drawn, before as after
    given = logits.clone()
    out = keep_top_p(logits, p)
    assert (out.shape, out.dtype) == (logits.shape, torch.float64)
    assert torch.equal(logits, given)
    for row, new in zip(logits.view(-1, 6).tolist(), out.view(-1, 6).tolist(), strict=True):
        total, before, nucleus = sum(map(math.exp, row)), 0.0, []
        for x in sorted(row, reverse=True):
            if before < p or not nucleus:
                nucleus.append(x)
            before += math.exp(x) / total
        assert new == [x if x in nucleus else -math.inf for x in row]
    leaf = logits.clone().requires_grad_()
    keep_top_p(leaf, p).masked_fill(out == -torch.inf, 0).sum().backward()
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, (out > -torch.inf).double())


@pytest.mark.exercise("sample.keep_top_p")
def test_top_p_ends_where_the_sum_is_p_to_the_bit() -> None:
    """Halves and quarters are exact: with 0.5 there is enough, and no token more is needed."""
    logits = logits_of(0.125, 0.5, 0.25, 0.125)
    assert kept(keep_top_p(logits, 0.5)) == [[False, True, False, False]]
    assert kept(keep_top_p(logits, 0.75)) == [[False, True, True, False]]
    assert kept(keep_top_p(logits, 0.750001)) in (
        [[True, True, True, False]],
        [[False] + 3 * [True]],
    )
    assert sum(kept(keep_top_p(torch.zeros(1, 2), 0.5))[0]) == 1
    assert sum(kept(keep_top_p(torch.zeros(1, 4), 0.5))[0]) == 2


@pytest.mark.exercise("sample.keep_top_p")
@pytest.mark.parametrize("p", [0.0, 1e-30, 0.5])
def test_the_likeliest_stays_whatever_p_is(p: float) -> None:
    assert kept(keep_top_p(torch.tensor([-3.0, 2.0, 0.0]), p)) == [False, True, False]
    assert kept(keep_top_p(torch.tensor([[-1e30], [0.0]]), p)) == [[True], [True]]
    assert kept(keep_top_p(torch.tensor([1e4, 0.0, -1e4]), p)) == [True, False, False]
    assert sum(kept(keep_top_p(torch.zeros(7), p))) == max(1, math.ceil(7 * p))


@pytest.mark.exercise("sample.keep_top_p")
def test_top_p_works_where_the_logits_are() -> None:
    with FakeTensorMode() as fake, torch.device("cuda"):
        logits = torch.zeros(2, 5)
    with fake:
        assert keep_top_p(logits, 0.5).device.type == "cuda"


@pytest.mark.exercise("sample.keep_top_p")
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_top_p_is_hugging_faces(p: float) -> None:
    from transformers import TopPLogitsWarper

    logits = 3 * torch.randn(8, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(keep_top_p(logits, p), TopPLogitsWarper(p)(None, logits))


def model_of(architecture: Architecture) -> GPT:
    torch.manual_seed(0)
    model = GPT(Shape(13, 20, 16, 2, 2), architecture)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_with_the_cache_as_without(architecture: Architecture) -> None:
    model = model_of(architecture)
    prompt = torch.randint(13, (3, 4), generator=torch.Generator().manual_seed(1))
    for settings in ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 5, "top_p": 0.9}):
        written = []
        for use_cache in (True, False):
            random = torch.Generator().manual_seed(2)
            written.append(
                generate(model, prompt, 16, generator=random, use_cache=use_cache, **settings)  # type: ignore[arg-type]
            )
        assert torch.equal(*written)
        assert written[0].shape == (3, 16)
    assert model.training  # as it was


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_greedy_is_hugging_faces_generate(architecture: Architecture) -> None:
    from pretraining import to_huggingface

    model = model_of(architecture)
    prompt = torch.randint(13, (2, 4), generator=torch.Generator().manual_seed(1))
    theirs = to_huggingface(model).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(generate(model, prompt, 16, temperature=0), theirs[:, 4:])


def test_draws_follow_the_probabilities() -> None:
    """4,000 rows of one model: the first tokens come as often as softmax(logits / 0.5) says."""
    model = model_of("gpt2")
    prompt = torch.tensor([[1, 2, 3]]).repeat(4000, 1)
    new = generate(model, prompt, 1, 0.5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (model(prompt[:1])[0, -1] / 0.5).softmax(dim=-1)
    found = torch.bincount(new[:, 0], minlength=13) / 4000
    assert (found - expected).abs().max() < 0.03


def test_stops_at_the_end_token_and_stays_there() -> None:
    model = model_of("gpt2")
    prompt = torch.randint(13, (6, 3), generator=torch.Generator().manual_seed(1))
    random = torch.Generator().manual_seed(5)
    free = generate(model, prompt, 15, generator=random)
    end = int(free[0, 2])
    new = generate(model, prompt, 15, generator=torch.Generator().manual_seed(5), end=end)
    for row in new.tolist():
        if end in row:
            assert set(row[row.index(end) :]) == {end}
    assert end in new[0].tolist()


@pytest.mark.parametrize(("length", "count"), [(0, 5), (21, 1), (10, 11)])
def test_what_does_not_fit_into_the_context_is_refused(length: int, count: int) -> None:
    with pytest.raises(ValueError, match="must fit into the context of 20"):
        generate(model_of("gpt2"), torch.zeros(1, length, dtype=torch.int64), count)


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_copies_are_continuations_of_one_prompt(
    architecture: Architecture, use_cache: bool
) -> None:
    model = model_of(architecture)
    prompt = torch.randint(13, (3, 4), generator=torch.Generator().manual_seed(1))
    repeated = prompt.repeat_interleave(5, dim=0)
    expected = generate(model, repeated, 7, generator=torch.Generator().manual_seed(2))
    found = generate(
        model, prompt, 7, generator=torch.Generator().manual_seed(2), use_cache=use_cache, copies=5
    )
    assert torch.equal(found, expected)


def test_a_function_may_choose_and_sees_the_logits_of_every_step() -> None:
    model = model_of("modern")
    prompt = torch.randint(13, (3, 4), generator=torch.Generator().manual_seed(1))
    seen: list[torch.Tensor] = []

    def least_likely(logits: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return logits.argmin(dim=-1, keepdim=True)

    written = generate(model, prompt, 6, temperature=0, chooser=least_likely)
    with torch.no_grad():
        whole = model(torch.cat([prompt, written], dim=1))[:, 3:-1]
    torch.testing.assert_close(torch.stack(seen, dim=1), whole, atol=1e-5, rtol=1e-4)
    assert torch.equal(written, whole.argmin(dim=-1))
    end = int(written[0, 1])
    cut = generate(model, prompt[:1], 6, end=end, chooser=least_likely)
    assert cut.tolist() == [written[0, : written[0].tolist().index(end)].tolist() + [end] * (
        6 - written[0].tolist().index(end)
    )]  # fmt: skip
