"""The rule of acceptance against exact probabilities, and guesses that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pretraining import GPT, generate
from systems.engine.engine import Engine
from systems.engine.sampling import Sampling
from systems.engine.scheduler import Sequence, Work
from systems.engine.speculative import NGram, accept
from systems.settings import EngineSettings

GRID = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
"""Uniform numbers, evenly spaced: a mean over them is a probability, to half a percent."""


def distributions() -> tuple[Tensor, Tensor]:
    p = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.0, 0.5, 0.5, 0.0]])
    q = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    return p.double(), q.double()


@pytest.mark.exercise("engine.speculative.accept")
def test_the_first_token_has_the_large_models_distribution() -> None:
    """Sum over all guesses with their probability, and over evenly spaced coins and draws."""
    p, q = distributions()
    share = torch.zeros(4, dtype=torch.float64)
    for guess in range(4):
        for coin in GRID[::4].tolist():
            for last in GRID[1::8].tolist():
                token = accept([guess], p[:2], q[:1], [coin], last)[0]
                share[token] += q[0, guess] / 50 / 25
    torch.testing.assert_close(share, p[0], atol=0.02, rtol=0)


@pytest.mark.exercise("engine.speculative.accept")
def test_guesses_are_accepted_up_to_the_first_rejection() -> None:
    p, q = distributions()
    before = p.clone(), q.clone()
    # p/q is 1/4 and 2/3 for guesses 0 and 1, above 1 for guesses 2 and 3.
    assert accept([0], p[:2], q[:1], [0.24], 0.0)[0] == 0
    assert accept([0], p[:2], q[:1], [0.26], 0.0)[0] != 0
    tokens = [*accept([0], p[:2], q[:1], [0.9], 0.0), *accept([], p[:1], q[:0], [], 0.5)]
    assert [type(token) for token in tokens] == [int, int]
    assert accept([3, 0], p, q, [0.999, 0.999], 0.4) == [3, 0, 1]
    assert accept([3, 0], p, q, [0.999, 0.999], 0.6) == [3, 0, 2]
    rejected = accept([0, 1], p, q, [0.9, 0.0], 0.9)
    assert len(rejected) == 1, "what was guessed after a rejection is dropped"
    assert len(accept([3, 1], p, q, [0.9, 0.9], 0.5)) == 2
    assert torch.equal(p, before[0])
    assert torch.equal(q, before[1])


@pytest.mark.exercise("engine.speculative.accept")
def test_after_a_rejection_the_residual_decides() -> None:
    """max(0, p - q) is (0, 0, 0.1, 0.3): token 2 for a quarter of the draws, then token 3."""
    p, q = distributions()
    for last in GRID.tolist():
        expected = 2 if last < 0.25 else 3
        assert accept([0], p[:2], q[:1], [0.5], last) == [expected]
    # At the second place p - q is positive for token 0 alone.
    assert accept([2, 3], p, q, [0.5, 0.9], 0.99) == [2, 0]


@pytest.mark.exercise("engine.speculative.accept")
def test_no_guess_and_certain_guesses() -> None:
    p, q = distributions()
    for last in GRID[::5].tolist():
        expected = next(i for i in range(4) if last < float(p[0].cumsum(0)[i]))
        assert accept([], p[:1], q[:0], [], last) == [expected]
    sure = torch.eye(4, dtype=torch.float64)
    assert accept([1, 2], sure[[1, 3, 0]], sure[[1, 2]], [0.0, 0.0], 0.3) == [1, 3]
    assert accept([1, 3], sure[[1, 3, 0]], sure[[1, 3]], [0.99, 0.99], 0.3) == [1, 3, 0]
    # Equal distributions accept whatever the coin says.
    assert accept([0], p[[0, 1]], p[:1], [0.9999], 0.0)[0] == 0


def test_n_grams_repeat_what_followed_before() -> None:
    vocabulary = NGram(9, 2)
    sequence = Sequence([1, 2, 3, 4, 1, 2, 5, 6, 7, 1, 2], 4, Sampling())
    q = vocabulary.propose([Work(sequence, 10, 4)])[sequence]
    assert sequence.draft == [5, 6, 7]  # after the latest [1, 2] before the end
    assert q.argmax(1).tolist() == [5, 6, 7]
    assert q.sum().item() == 3
    short = vocabulary.propose([Work(sequence, 10, 2)])[sequence]
    assert sequence.draft == [5]
    assert short.shape == (1, 9)
    fresh = Sequence([1, 2, 3], 3, Sampling())
    assert vocabulary.propose([Work(fresh, 2, 4)])[fresh].shape == (0, 9)
    vocabulary.propose([Work(sequence, 0, 11)])  # a prompt that is being read has no guesses
    assert sequence.draft == []


@pytest.mark.parametrize("kind", ["n-gram", "same model", "other model"])
def test_greedy_answers_do_not_change(
    make_gpt: Callable[..., GPT], gpt: GPT, prompts: list[list[int]], kind: str
) -> None:
    draft = {"n-gram": None, "same model": gpt, "other model": make_gpt(3, layers=1)}[kind]
    settings = EngineSettings(block_size=4, blocks=80, max_tokens=20, speculate=3)
    engine = Engine(gpt, settings, draft)
    answers = engine.generate(prompts, [Sampling(0, max_tokens=25)] * len(prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        expected = generate(gpt, torch.tensor([prompt]), 25, temperature=0)[0].tolist()
        assert answer == expected
    assert len(engine.pool.free) == 80


def test_a_model_that_guesses_its_own_tokens_is_always_right(gpt: GPT) -> None:
    steps = {}
    for speculate in (0, 4):
        engine = Engine(gpt, EngineSettings(speculate=speculate), gpt)
        engine.add([1, 2, 3], Sampling(0, max_tokens=26))
        steps[speculate] = 0
        while engine.busy:
            engine.step()
            steps[speculate] += 1
    assert steps == {0: 26, 4: 6}  # the prompt's step gives one token, the others five each


def test_sampled_answers_keep_their_distribution(make_gpt: Callable[..., GPT], gpt: GPT) -> None:
    """Two tokens after a prompt, over many seeds: the pairs, with guesses and without."""
    count, prompt = 1200, [4, 8]
    shares = []
    for draft, speculate in ((None, 0), (make_gpt(3, layers=1), 2)):
        settings = EngineSettings(speculate=speculate, max_sequences=300, max_tokens=1200)
        engine = Engine(gpt, settings, draft)
        each = [Sampling(0.6, top_k=3, max_tokens=3, seed=i) for i in range(count)]
        answers = torch.tensor(engine.generate([prompt] * count, each))
        pairs = answers[:, 1] * 50 + answers[:, 2]
        shares.append(torch.bincount(pairs, minlength=2500) / count)
    assert (shares[0] - shares[1]).abs().max() < 0.06  # four deviations at a share of a half
    assert (shares[0] > 0.02).sum() >= 3, "too few pairs: nothing is compared"
