"""The engine writes what week 7's sampler and Hugging Face write, however it is pressed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pretraining import GPT, generate, to_huggingface
from systems.engine.engine import Engine
from systems.engine.sampling import Sampling
from systems.settings import EngineSettings

NEW = 20


@pytest.fixture(scope="module")
def expected(gpt: GPT, prompts: list[list[int]]) -> list[list[int]]:
    """Week 7's sampler, one prompt at a time."""
    return [generate(gpt, torch.tensor([p]), NEW, temperature=0)[0].tolist() for p in prompts]


def greedy(count: int, new: int = NEW, stop: frozenset[int] = frozenset()) -> list[Sampling]:
    return [Sampling(0, max_tokens=new, stop_tokens=stop)] * count


@pytest.mark.parametrize(
    "settings",
    [
        EngineSettings(),
        EngineSettings(block_size=1, blocks=400),
        EngineSettings(block_size=5, blocks=90, share_prefixes=False),
        EngineSettings(block_size=4, blocks=90, max_tokens=3),  # every prompt in chunks
        EngineSettings(block_size=4, blocks=90, max_sequences=2),  # most of them wait
        EngineSettings(block_size=4, blocks=13, max_tokens=16),  # preemption
        EngineSettings(block_size=3, blocks=17, max_tokens=7, max_sequences=3, speculate=2),
    ],
)
def test_greedy_answers_are_the_plain_samplers(
    gpt: GPT, prompts: list[list[int]], expected: list[list[int]], settings: EngineSettings
) -> None:
    engine = Engine(gpt, settings)
    assert engine.generate(prompts, greedy(len(prompts))) == expected
    assert (engine.scheduler.preemptions > 0) == (settings.blocks in (13, 17))
    assert len(engine.pool.free) == settings.blocks, "every block is free at the end"
    again = engine.generate(prompts, greedy(len(prompts)))  # now with blocks that are known
    assert again == expected


def test_answers_are_hugging_faces(
    gpt: GPT, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    theirs = to_huggingface(gpt)
    for prompt, answer in list(zip(prompts, expected, strict=True))[:3]:
        row = torch.tensor([prompt])
        out = theirs.generate(  # type: ignore[attr-defined]
            row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
        assert out[0, len(prompt) :].tolist() == answer


def test_requests_join_and_leave_at_any_step(
    gpt: GPT, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=60, max_tokens=9))
    sequences = []
    for prompt in prompts:
        sequences.append(engine.add(prompt, greedy(1)[0]))
        engine.step()
        engine.step()
    victim = sequences.pop(2)
    engine.abort(victim)
    engine.abort(victim)
    while engine.busy:
        engine.step()
    assert victim.finished == "abort"
    assert [s.answer for s in sequences] == [e for i, e in enumerate(expected) if i != 2]
    assert all(s.finished == "length" for s in sequences)
    assert len(engine.pool.free) == 60


def test_a_beginning_that_is_known_is_not_computed_again(gpt: GPT) -> None:
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=40))
    prompt = list(range(1, 18))
    first = engine.add(prompt, greedy(1, 3)[0])
    engine.step()
    second = engine.add([*prompt, 30], greedy(1, 3)[0])
    work = engine.scheduler.schedule()
    count = {w.sequence: w.count for w in work}
    assert count == {first: 1, second: 2}  # 16 of 18 tokens lie in shared blocks
    assert second.table[:4] == first.table[:4]
    assert [engine.pool.references[b] for b in first.table[:4]] == [2] * 4


def test_requests_of_one_step_share_as_well(gpt: GPT) -> None:
    """Also when the whole prompt is known: its last block is computed again, and by each alone."""
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=40))
    prompt = list(range(1, 17))
    answers = engine.generate([prompt] * 3, greedy(3, 6))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0] == generate(gpt, torch.tensor([prompt]), 6, temperature=0)[0].tolist()
    engine.add(prompt, greedy(1)[0])
    engine.add(prompt, greedy(1)[0])
    assert [w.count for w in engine.scheduler.schedule()] == [4, 4]


def test_chunks_respect_the_budget_and_writers_come_first(gpt: GPT) -> None:
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=60, max_tokens=8))
    writer = engine.add([1, 2], greedy(1)[0])
    engine.step()
    reader = engine.add(list(range(30)), greedy(1)[0])
    counts = []
    for _ in range(6):
        work = engine.scheduler.schedule()
        counts.append({w.sequence: w.count for w in work})
        assert sum(w.count for w in work) <= 8
        for w in work:  # as if they had been computed
            w.sequence.computed += w.count
            if w.sequence.computed == len(w.sequence.tokens):
                w.sequence.tokens.append(7)
    assert [c[writer] for c in counts] == [1] * 6
    assert [c[reader] for c in counts] == [7, 7, 7, 7, 2, 1]


def test_answers_end_at_stop_tokens(
    gpt: GPT, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    stop = expected[1][4]
    place = expected[1].index(stop)
    engine = Engine(gpt, EngineSettings(speculate=2))
    sequences = [engine.add(p, greedy(1, NEW, frozenset([stop]))[0]) for p in prompts]
    while engine.busy:
        engine.step()
    for sequence, whole in zip(sequences, expected, strict=True):
        end = whole.index(stop) + 1 if stop in whole else NEW
        assert sequence.answer == whole[:end]
        assert sequence.finished == ("stop" if stop in whole else "length")
    assert len(sequences[1].answer) == place + 1


def test_draws_do_not_depend_on_the_company(gpt: GPT, prompts: list[list[int]]) -> None:
    """Alone, in a batch, in chunks and after preemption a seed gives the same answer."""
    each = [Sampling(0.9, top_p=0.9, max_tokens=12, seed=i) for i in range(len(prompts))]
    together = Engine(gpt, EngineSettings()).generate(prompts, each)
    pressed = Engine(gpt, EngineSettings(block_size=4, blocks=11, max_tokens=5)).generate(
        prompts, each
    )
    alone = [
        Engine(gpt, EngineSettings()).generate([p], [s])[0]
        for p, s in zip(prompts, each, strict=True)
    ]
    assert together == pressed == alone
    assert together != [
        Engine(gpt, EngineSettings()).generate([p], [Sampling(0.9, seed=99, max_tokens=12)])[0]
        for p in prompts
    ]


@pytest.mark.parametrize(
    ("tokens", "sampling", "said"),
    [
        ([], Sampling(), "the prompt is empty"),
        (
            [1] * 60,
            Sampling(max_tokens=5),
            "60 prompt tokens and max_tokens=5 are more than the 64",
        ),
        ([1, 50], Sampling(), "tokens 0 to 49 only"),
        ([-1], Sampling(), "tokens 0 to 49 only"),
    ],
)
def test_what_cannot_be_served_is_refused(
    gpt: GPT, tokens: list[int], sampling: Sampling, said: str
) -> None:
    engine = Engine(gpt, EngineSettings())
    with pytest.raises(ValueError, match=said):
        engine.add(tokens, sampling)
    assert not engine.busy


def test_a_request_larger_than_the_cache_is_refused(gpt: GPT) -> None:
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=5))
    with pytest.raises(ValueError, match="more than the 20 tokens"):
        engine.add([1] * 15, Sampling(max_tokens=6))
    assert engine.generate([[1] * 15], greedy(1, 5))[0]


def test_models_that_do_not_fit_are_refused(make_gpt: Callable[..., GPT], gpt: GPT) -> None:
    from pretraining import Shape

    with pytest.raises(ValueError, match="causal GPT-2"):
        Engine(GPT(Shape(50, 64, 16, 1, 2), "modern"), EngineSettings())
    with pytest.raises(ValueError, match="vocabulary"):
        Engine(gpt, EngineSettings(), GPT(Shape(49, 64, 16, 1, 2)))


def test_what_was_gathered_is_kept_while_the_same_requests_write(gpt: GPT) -> None:
    engine = Engine(gpt, EngineSettings(block_size=4, blocks=60))
    first, second = engine.add([1, 2, 3], greedy(1, 9)[0]), engine.add([4, 5], greedy(1, 3)[0])
    groups = []
    while engine.busy:
        engine.step()
        groups.append(next(iter(engine.runner.kept.values()), None))
    assert groups[0] is None, "prompts are read"
    assert groups[1] is groups[2] is not None
    assert groups[2] is not groups[3], "the second request has left"
    assert len({id(group) for group in groups[3:]}) == 1, "there is room for two blocks more"
    for sequence, prompt in ((first, [1, 2, 3]), (second, [4, 5])):
        row = generate(gpt, torch.tensor([prompt]), len(sequence.answer), temperature=0)
        assert sequence.answer == row[0].tolist()


def test_room_that_is_used_up_is_made_again(gpt: GPT) -> None:
    """A long answer in small blocks: many gathers, of which none may lose what was written."""
    engine = Engine(gpt, EngineSettings(block_size=2, blocks=60))
    prompts = [[7, 1, 3], [7, 1, 3, 9, 2, 2, 2]]
    answers = engine.generate(prompts, greedy(2, 40))
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer == generate(gpt, torch.tensor([prompt]), 40, temperature=0)[0].tolist()
