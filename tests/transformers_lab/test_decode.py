"""Beam search against trying everything, and against a beam written with lists."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from transformers_lab import Transformer, beam_search, decode, greedy
from transformers_lab.bpe import BOS, EOS, PAD
from transformers_lab.model import Shape

V = 6
SOURCE = torch.tensor([[4, 5, 3, 2], [5, 5, 2, PAD], [3, 2, PAD, PAD]])
Hypothesis = tuple[tuple[int, ...], float]


def build(seed: int, sharp: float = 2.0) -> Transformer:
    """Random weights, sharp enough to have opinions; never writes PAD before the end."""
    torch.manual_seed(seed)
    model = Transformer(V, Shape(16, 2, 1, 16, 0.0, True)).eval()
    with torch.no_grad():
        model.embedding.weight[1:] *= sharp
        model.embedding.weight[PAD] = 0
    return model


def log_probs(model: Transformer, source: Tensor, written: tuple[int, ...]) -> list[float]:
    """Of every next token, by a forward pass over everything."""
    target = torch.tensor([[BOS, *written]])
    with torch.no_grad():
        found: list[float] = (
            model(source[source != PAD][None], target)[0, -1].log_softmax(-1).tolist()
        )
    return found


def rank(hypothesis: Hypothesis, alpha: float) -> float:
    tokens, score = hypothesis
    return score / ((5 + len(tokens)) / 6) ** alpha


def everything(model: Transformer, source: Tensor, limit: int, alpha: float) -> list[Hypothesis]:
    """All hypotheses that end, or reach the limit, the best first."""
    ended: list[Hypothesis] = []
    alive: list[Hypothesis] = [((), 0.0)]
    for _ in range(limit):
        longer = [
            ((*tokens, v), score + p)
            for tokens, score in alive
            for v, p in enumerate(log_probs(model, source, tokens))
        ]
        ended += [h for h in longer if h[0][-1] == EOS]
        alive = [h for h in longer if h[0][-1] != EOS]
    return sorted(ended + alive, key=lambda h: -rank(h, alpha))


def beam_by_lists(
    model: Transformer, source: Tensor, beams: int, limit: int, alpha: float
) -> Hypothesis:
    """The same search with nothing but tuples."""
    kept: list[Hypothesis] = [((), 0.0)]
    for _ in range(limit):
        longer: list[Hypothesis] = []
        for tokens, score in kept:
            if tokens and tokens[-1] == EOS:
                longer.append((tokens, score))
                continue
            nexts = log_probs(model, source, tokens)
            longer += [((*tokens, v), score + nexts[v]) for v in range(V)]
        kept = sorted(longer, key=lambda h: -rank(h, alpha))[:beams]
    return kept[0]


def stripped(row: Tensor) -> tuple[int, ...]:
    """A row up to its EOS, EOS included."""
    tokens = row.tolist()
    return tuple(tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_wide_enough_finds_the_best_of_all(seed: int, alpha: float) -> None:
    model = build(seed)
    found = beam_search(model, SOURCE, beams=V**3, alpha=alpha, limit=3)
    for row, source in zip(found, SOURCE, strict=True):
        best = everything(model, source, 3, alpha)[0]
        assert stripped(row) == best[0]


@pytest.mark.parametrize(
    ("seed", "beams", "alpha"), itertools.product([0, 1, 2], [2, 3], [0.0, 0.6, 1.5])
)
def test_a_narrow_beam_is_the_one_written_with_lists(seed: int, beams: int, alpha: float) -> None:
    model = build(seed)
    found = beam_search(model, SOURCE, beams, alpha, limit=6)
    for row, source in zip(found, SOURCE, strict=True):
        assert stripped(row) == beam_by_lists(model, source, beams, 6, alpha)[0]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_one_beam_is_greedy(alpha: float) -> None:
    model = build(3)
    one, short = beam_search(model, SOURCE, 1, alpha, limit=8), greedy(model, SOURCE, limit=8)
    assert [stripped(row) for row in one] == [stripped(row) for row in short]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_writes_the_likeliest_token_each_time(seed: int) -> None:
    model = build(seed)
    for row, source in zip(greedy(model, SOURCE, limit=7), SOURCE, strict=True):
        written: tuple[int, ...] = ()
        while len(written) < 7 and EOS not in written:
            nexts = log_probs(model, source, written)
            written = (*written, max(range(V), key=nexts.__getitem__))
        assert stripped(row) == written
        assert set(row.tolist()[len(written) :]) <= {PAD}


def test_writing_stops_at_its_limit() -> None:
    model = build(0)
    with torch.no_grad():
        model.embedding.weight[EOS] = 0  # hardly ever the likeliest
    assert greedy(model, SOURCE, limit=5).shape[1] <= 5
    assert greedy(model, SOURCE[:, :2]).shape[1] <= 2 + decode.EXTRA


@pytest.mark.exercise("decode.length_penalty")
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.0])
def test_length_penalty_is_that_of_wu(alpha: float) -> None:
    found = decode.length_penalty(torch.tensor([[1, 7], [13, 31]]), alpha)
    expected = torch.tensor([[1.0, 2.0**alpha], [3.0**alpha, 6.0**alpha]])
    torch.testing.assert_close(found, expected)


@pytest.mark.exercise("decode.length_penalty")
@pytest.mark.parametrize("shape", [(), (1,), (2, 3, 4)])
def test_length_penalty_has_the_shape_of_the_lengths(shape: tuple[int, ...]) -> None:
    lengths = torch.arange(math.prod(shape)).view(shape)
    found = decode.length_penalty(lengths, 0.7)
    expected = [((5 + n) / 6) ** 0.7 for n in range(math.prod(shape))]
    torch.testing.assert_close(found, torch.tensor(expected).view(shape))
    assert torch.equal(lengths, torch.arange(math.prod(shape)).view(shape))
    assert decode.length_penalty(lengths.to("meta"), 0.7).device.type == "meta"


@pytest.fixture
def penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """`extend` is graded with this length penalty, whatever became of the other exercise."""
    monkeypatch.setattr(
        decode, "length_penalty", lambda length, alpha: ((length + 5) / 6).pow(alpha)
    )


def extend_by_lists(
    scores: list[float],
    lengths: list[int],
    done: list[bool],
    nexts: list[list[float]],
    alpha: float,
) -> list[tuple[float, int, int, int]]:
    """(score, length, parent, token) of all hypotheses of one sentence, the best first."""
    found = []
    for k, (score, length) in enumerate(zip(scores, lengths, strict=True)):
        if done[k]:
            found.append((score, length, k, PAD))
        else:
            found += [(score + p, length + 1, k, v) for v, p in enumerate(nexts[k])]
    return sorted(found, key=lambda h: -h[0] / ((5 + h[1]) / 6) ** alpha)


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize(("batch", "beams"), [(1, 1), (3, 1), (1, 2), (5, 4), (2, 3)])
def test_extend_is_sorting_all_there_is(batch: int, beams: int, alpha: float) -> None:
    """In float64, with some finished and some not there yet; what is given stays as it is."""
    g = torch.Generator().manual_seed(batch + beams)
    for size in (2, 3, 9):
        scores = torch.randn(batch, beams, generator=g, dtype=torch.float64) - 3
        if beams > 2:
            scores[:, -1] = -torch.inf
        lengths = torch.randint(1, 9, (batch, beams), generator=g)
        done = torch.rand(batch, beams, generator=g) < 0.4
        log_probs = torch.randn(batch, beams, size, generator=g, dtype=torch.float64)
        log_probs = log_probs.log_softmax(dim=-1)
        log_probs[..., 1] = -torch.inf
        given = [x.clone() for x in (scores, lengths, done, log_probs)]
        out = decode.extend(scores, lengths, done, log_probs, alpha)
        for before, after in zip(given, (scores, lengths, done, log_probs), strict=True):
            assert torch.equal(before, after)
        assert [x.dtype for x in out] == [torch.float64, *[torch.int64] * 3]
        assert [x.shape for x in out] == [(batch, beams)] * 4
        for b in range(batch):
            every = extend_by_lists(
                *(x[b].tolist() for x in (scores, lengths, done, log_probs)), alpha
            )
            every += [(-math.inf, 0, 0, 0)] * beams  # where there are fewer than K
            for k, expected in enumerate(every[:beams]):
                found = tuple(x[b, k].item() for x in out)
                if math.isinf(expected[0]):
                    assert found[0] == -math.inf, "what is not there stays away"
                else:
                    assert found[0] == pytest.approx(expected[0], abs=1e-12)
                    assert found[1:] == expected[1:]


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_what_a_finished_hypothesis_would_say_next_does_not_matter() -> None:
    scores, done = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
    nothing = torch.full((1, 2, 5), -torch.inf)
    out = decode.extend(scores, torch.tensor([[2, 3]]), done, nothing, 0.5)
    assert [x.tolist() for x in out] == [[[-1.0, -2.0]], [[2, 3]], [[0, 1]], [[PAD, PAD]]]


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_extend_works_where_its_tensors_are() -> None:
    """Fake tensors of a GPU meet nothing that lies on the CPU."""
    with FakeTensorMode() as fake, torch.device("cuda"):
        given = [
            torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64),
            torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 3, 7),
        ]  # fmt: skip
    with fake:  # and not in the reach of the device that is the default above
        out = decode.extend(*given, 0.6)
    assert {x.device.type for x in out} == {"cuda"}


def table(*rows: list[float]) -> Tensor:
    """Log-probabilities (1, K, V) of probabilities."""
    return torch.tensor([rows]).log()


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_extend_adds_log_probabilities_and_names_the_parents() -> None:
    scores = torch.tensor([[math.log(0.5), math.log(0.4)]])
    probabilities = table([0.1, 0.1, 0.1, 0.3, 0.4], [0.0, 0.0, 0.0, 0.9, 0.1])
    lengths, done = torch.tensor([[3, 3]]), torch.tensor([[False, False]])
    best, longer, parents, tokens = decode.extend(scores, lengths, done, probabilities, 0.0)
    torch.testing.assert_close(best.exp(), torch.tensor([[0.36, 0.20]]))
    assert longer.tolist() == [[4, 4]]
    assert parents.tolist() == [[1, 0]]
    assert tokens.tolist() == [[3, 4]]


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_a_finished_hypothesis_stays_as_it_is() -> None:
    scores = torch.tensor([[math.log(0.3), math.log(0.5)]])
    lengths, done = torch.tensor([[2, 6]]), torch.tensor([[True, False]])
    probabilities = table([0.2, 0.2, 0.2, 0.2, 0.2], [0.0, 0.1, 0.1, 0.2, 0.6])
    best, longer, parents, tokens = decode.extend(scores, lengths, done, probabilities, 0.0)
    torch.testing.assert_close(best.exp(), torch.tensor([[0.3, 0.3]]))
    assert sorted(
        zip(parents[0].tolist(), tokens[0].tolist(), longer[0].tolist(), strict=True)
    ) == [
        (0, PAD, 2),
        (1, 4, 7),
    ]


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_the_penalty_lets_a_longer_hypothesis_win() -> None:
    """Score -1.0 at length 1 (lp 1) against -1.5 at length 7 (lp 2 for α = 1)."""
    scores, lengths = torch.tensor([[-1.0, -1.5]]), torch.tensor([[1, 6]])
    done = torch.tensor([[True, False]])
    sure = table([0.2] * 5, [0.0, 0.0, 1.0, 0.0, 0.0])
    for alpha, winner in ((0.0, 0), (1.0, 1)):
        best, longer, parents, _ = decode.extend(scores, lengths, done, sure, alpha)
        assert parents[0, 0] == winner
        assert longer[0, 0] == (1, 7)[winner]
        torch.testing.assert_close(best[0, 0], scores[0, winner])  # not divided


@pytest.mark.exercise("decode.extend")
@pytest.mark.usefixtures("penalty")
def test_the_penalty_is_that_of_the_longer_hypothesis() -> None:
    """-1.05 at length 8 (lp 13/6) beats -1 at length 7 (lp 2); with lp of 7 it would not."""
    scores, lengths = torch.tensor([[-1.0, -1.05]]), torch.tensor([[7, 7]])
    sure = table([0.2] * 5, [0.0, 0.0, 1.0, 0.0, 0.0])
    done = torch.tensor([[True, False]])
    _, longer, parents, _ = decode.extend(scores, lengths, done, sure, 1.0)
    assert parents.tolist() == [[1, 0]]
    assert longer.tolist() == [[8, 7]]
