"""Language models against a source whose every probability is known."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from pytorch_mastery import makemore, names
from pytorch_mastery.names import SYMBOLS, K


@pytest.fixture(scope="module")
def sample() -> tuple[list[str], list[str], list[str]]:
    return names.splits()


def test_the_source_is_a_distribution_that_ends() -> None:
    p = names.source()
    np.testing.assert_allclose(p.sum(axis=2), 1)
    assert (p >= 0).all()
    assert p[0, :, 0].max() == 0, "no name of fewer than two letters"


def test_names_follow_the_source(sample: tuple[list[str], ...]) -> None:
    """Letters, lengths and pairs of 20,000 names against the exact expectations."""
    train = sample[0]
    p = names.source()
    v = names.visits(p)
    length = np.mean([len(name) + 1 for name in train])
    spread = np.std([len(name) + 1 for name in train]) / math.sqrt(len(train))
    assert abs(length - v.sum()) < 4 * spread
    first = Counter(name[0] for name in train)
    for c in range(1, K):
        share = first[SYMBOLS[c]] / len(train)
        assert share == pytest.approx(p[0, 0, c], abs=4 * math.sqrt(0.25 / len(train)))
    expected = (v[..., None] * p).sum(axis=0) / v.sum()  # how frequent each pair is
    x, y = makemore.examples(train, context=1)
    seen = np.zeros((K, K))
    np.add.at(seen, (x[:, 0].numpy(), y.numpy()), 1 / len(y))
    np.testing.assert_allclose(seen, expected, atol=2e-3)


def test_entropy_is_the_mean_surprise_of_the_names(sample: tuple[list[str], ...]) -> None:
    """Exact: by the chain. Estimated: -log p of 20,000 names, letter by letter."""
    loss = makemore.table_loss(torch.tensor(names.source()), sample[0])
    assert loss == pytest.approx(names.entropy(), abs=0.01)


def test_entropy_of_a_chain_that_can_be_done_in_the_head() -> None:
    """A first and a second letter, each a or b with 1/2, then the end: 2 log 2 over 3 symbols."""
    p = np.zeros((K, K, K))
    p[0, 0, 1:3] = p[0, 1:3, 1:3] = 0.5
    p[:, :, 0] += 1 - p.sum(axis=2)
    assert names.visits(p).sum() == pytest.approx(3)
    assert names.entropy(p) == pytest.approx(2 * math.log(2) / 3)
    assert set(names.draw(200, 0, p)) == {"aa", "ab", "ba", "bb"}


def test_no_model_beats_the_entropy_and_no_bigram_the_best_one() -> None:
    p = names.source()
    best = names.bigram()
    loss = names.cross_entropy(np.broadcast_to(best, p.shape))
    assert names.entropy() < loss < math.log(K)
    rng = np.random.default_rng(0)
    for _ in range(5):
        other = best * np.exp(rng.normal(0, 0.05, best.shape))
        other /= other.sum(axis=1, keepdims=True)
        assert names.cross_entropy(np.broadcast_to(other, p.shape)) > loss


@pytest.mark.exercise("makemore.bigram_counts")
def test_counts_by_hand() -> None:
    counts = makemore.bigram_counts(["ab", "bbz", "a"])
    assert counts.shape == (27, 27)
    assert counts.dtype == torch.float64
    expected = {".a": 2, "ab": 1, "b.": 1, ".b": 1, "bb": 1, "bz": 1, "z.": 1, "a.": 1}
    found = {SYMBOLS[b] + SYMBOLS[c]: int(counts[b, c]) for b, c in counts.nonzero().tolist()}
    assert found == expected


@pytest.mark.exercise("makemore.bigram_counts")
def test_no_names_are_no_counts_and_repeated_letters_count_each_time() -> None:
    assert torch.equal(makemore.bigram_counts([]), torch.zeros(27, 27, dtype=torch.float64))
    counts = makemore.bigram_counts(("zzzz", "zz"))
    assert (counts[26, 26], counts[0, 26], counts[26, 0], counts.sum()) == (4, 2, 2, 8)


@pytest.mark.exercise("makemore.bigram_counts")
def test_counts_are_those_of_a_counter() -> None:
    drawn = names.draw(300, seed=5)
    pairs = Counter(a + b for name in drawn for a, b in zip(f".{name}", f"{name}.", strict=True))
    counts = makemore.bigram_counts(drawn)
    assert counts.sum() == sum(pairs.values())
    for b, first in enumerate(SYMBOLS):
        for c, second in enumerate(SYMBOLS):
            assert counts[b, c] == pairs[first + second]


@pytest.mark.exercise("makemore.bigram_probabilities")
def test_rows_are_smoothed_relative_frequencies() -> None:
    counts = torch.zeros(27, 27, dtype=torch.float64)
    counts[0, 1], counts[0, 2], counts[1, 0] = 6, 3, 9
    before = counts.clone()
    p = makemore.bigram_probabilities(counts, 0.5)
    assert torch.equal(counts, before), "the counts belong to the caller"
    torch.testing.assert_close(p.sum(dim=1), torch.ones(27, dtype=torch.float64))
    assert p[0, 1].item() == pytest.approx(6.5 / (9 + 27 * 0.5))
    assert p[0, 2].item() == pytest.approx(3.5 / (9 + 27 * 0.5))
    assert p[1, 0].item() == pytest.approx(9.5 / (9 + 27 * 0.5))
    assert p[5, 7].item() == pytest.approx(1 / 27)
    assert p.dtype == torch.float64


@pytest.mark.exercise("makemore.bigram_probabilities")
@pytest.mark.parametrize("smoothing", [1e-3, 1.0, 30.0])
def test_every_row_has_its_own_total(smoothing: float) -> None:
    counts = torch.randint(0, 50, (27, 27), generator=torch.Generator().manual_seed(0)).double()
    p = makemore.bigram_probabilities(counts, smoothing)
    for b in range(27):
        total = sum(counts[b].tolist()) + 27 * smoothing
        expected = [(count + smoothing) / total for count in counts[b].tolist()]
        assert p[b].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.exercise("makemore.bigram_probabilities")
def test_smoothing_is_the_mean_of_a_dirichlet_posterior() -> None:
    """A symmetric Dirichlet prior on each row, its posterior mean from 40,000 draws."""
    counts = torch.zeros(27, 27, dtype=torch.float64)
    counts[3, :4] = torch.tensor([5.0, 1.0, 0.0, 2.0])
    posterior = (
        np.random.default_rng(0).dirichlet(counts[3].numpy() + 1.0, size=40_000).mean(axis=0)
    )
    ours = makemore.bigram_probabilities(counts, 1.0)[3].numpy()
    np.testing.assert_allclose(ours, posterior, atol=2e-3)


def test_counting_reaches_the_best_bigram(sample: tuple[list[str], ...]) -> None:
    """Its expected loss, computed exactly, is that of the best bigram but for the finite sample."""
    p = names.source()
    q = makemore.bigram_probabilities(makemore.bigram_counts(sample[0]), 0.1)
    best = names.cross_entropy(np.broadcast_to(names.bigram(), p.shape))
    assert best < names.cross_entropy(np.broadcast_to(q.numpy(), p.shape)) < best + 0.005
    assert makemore.table_loss(q, sample[2]) == pytest.approx(best, abs=0.02)


def test_gradient_descent_finds_what_counting_computes(sample: tuple[list[str], ...]) -> None:
    counts = makemore.bigram_counts(sample[0])
    counted = makemore.bigram_probabilities(counts, 0.1)
    learned = makemore.bigram_by_gradient(counts, 0.1)
    torch.testing.assert_close(learned.sum(dim=1), torch.ones(27, dtype=torch.float64))
    assert makemore.table_loss(learned, sample[2]) == pytest.approx(
        makemore.table_loss(counted, sample[2]), abs=2e-3
    )
    often = counts.sum(dim=1) > 100
    torch.testing.assert_close(learned[often], counted[often], atol=5e-3, rtol=0)


def test_examples_by_hand() -> None:
    x, y = makemore.examples(["ab", "c"], context=3)
    assert x.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 3]]
    assert y.tolist() == [1, 2, 0, 3, 0]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_mlp_is_between_the_source_and_the_bigram(
    sample: tuple[list[str], ...], batch_norm: bool
) -> None:
    train, _, test = sample
    torch.manual_seed(0)
    model = makemore.train_mlp(makemore.mlp(batch_norm=batch_norm), train, steps=600, seed=0)
    loss = makemore.mlp_loss(model, test)
    floor = makemore.table_loss(torch.tensor(names.source()), test)
    bigram = makemore.bigram_probabilities(makemore.bigram_counts(train), 0.1)
    assert floor < loss < floor + 0.06  # 0.040 to 0.044 on four seeds, with and without
    assert loss < makemore.table_loss(bigram, test) - 0.1


def test_an_untrained_mlp_knows_about_nothing(sample: tuple[list[str], ...]) -> None:
    torch.manual_seed(0)
    assert makemore.mlp_loss(makemore.mlp().eval(), sample[2]) == pytest.approx(
        math.log(K), abs=0.3
    )


def test_samples_follow_the_model() -> None:
    """A network that has the source's own logits writes names as long as the source's."""

    class Source(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(names.source())[x[:, -2], x[:, -1]].log()

    written = makemore.sample(Source(), 5000, seed=0, longest=60)
    assert makemore.sample(Source(), 5, seed=1) == makemore.sample(Source(), 5, seed=1)
    lengths = np.array([len(name) + 1 for name in written])
    spread = lengths.std() / math.sqrt(len(lengths))
    assert abs(lengths.mean() - names.visits(names.source()).sum()) < 4 * spread


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert makemore.main(["--steps", "20"]) == 0
    out = capsys.readouterr().out
    assert f"{names.entropy():.4f}" in out
    assert "3.2958" in out  # ln 27
    assert out.rstrip().splitlines()[-1].count(",") == 9


@pytest.mark.parametrize("words", [["--step", "x"], ["--steps", "0"], ["fast"]])
def test_wrong_options_end_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        makemore.main(words)
    assert stop.value.code == 2
