"""The generated sequences: right answers, no sequence in two splits, batches by their step."""

import numpy as np
import pytest

from attention.tasks import SPLITS, TASKS, Sequences, digest, split_of


def test_rows_say_the_task_the_sequence_and_the_answer() -> None:
    data = Sequences(length=4, symbols=5)
    x = np.array([[3, 1, 0, 1]])
    written = {task: [data.label(t) for t in data.rows(task, x)[0]] for task in TASKS}
    assert written == {
        "copy": ["copy", *"dbab", "=", *"dbab"],
        "reverse": ["reverse", *"dbab", "=", *"babd"],
        "sort": ["sort", *"dbab", "=", *"abbd"],
    }
    assert data.rows("sort", x)[0].max() < data.vocabulary
    assert data.rows("copy", x)[0, data.prompt - 1] == data.vocabulary - 1  # the equals sign


def test_splits_are_disjoint_and_cover_everything() -> None:
    """All 6^5 sequences of a small alphabet, each counted once."""
    data = Sequences(length=5, symbols=6)
    everything = np.stack(np.meshgrid(*[range(6)] * 5), axis=-1).reshape(-1, 5)
    shares = np.bincount(split_of(everything), minlength=3) / len(everything)
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.8], atol=0.01)
    rng = np.random.default_rng(0)
    drawn = {s: {tuple(x) for x in data.draw(s, 3000, rng).tolist()} for s in SPLITS}
    assert not drawn["test"] & drawn["train"]
    assert not drawn["test"] & drawn["valid"]
    assert not drawn["valid"] & drawn["train"]


def test_no_batch_of_a_run_holds_a_test_sequence() -> None:
    data = Sequences(length=5, symbols=8)
    tested = {
        tuple(row[1:6]) for task in TASKS for row in data.held_out("test", task, 200).tolist()
    }
    for step in range(20):
        batch = data.batch(TASKS, 96, seed=0, step=step)
        assert batch.shape == (96, 12)
        assert not tested & {tuple(row[1:6]) for row in batch.tolist()}
        kinds = np.bincount(batch[:, 0] - 8, minlength=3)
        assert kinds.tolist() == [32, 32, 32]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    data = Sequences(length=6, symbols=8)
    np.testing.assert_array_equal(data.batch(TASKS, 30, 1, 7), data.batch(TASKS, 30, 1, 7))
    assert not np.array_equal(data.batch(TASKS, 30, 1, 7), data.batch(TASKS, 30, 1, 8))
    assert not np.array_equal(data.batch(TASKS, 30, 1, 7), data.batch(TASKS, 30, 2, 7))


@pytest.mark.parametrize("symbols", [8, 64])
def test_long_sequences_do_not_overflow_the_hash(symbols: int) -> None:
    x = np.random.default_rng(0).integers(symbols, size=(500, 300))
    exact = [sum((v + 1) * pow(31, i, 1_000_003) for i, v in enumerate(row)) for row in x.tolist()]
    expected = [min(h % 1_000_003 % 10, 2) for h in exact]
    assert split_of(x).tolist() == expected


def test_digest_tells_test_sets_apart() -> None:
    data = Sequences(length=6, symbols=8)
    one, again, other = (
        digest({t: data.held_out(split, t, 10) for t in TASKS})
        for split in ("test", "test", "valid")
    )
    assert one == again
    assert one != other
