"""The pictures that settings are chosen by are not trained on, and are the same in every run."""

import numpy as np
import pytest

from diffusion.data import hold_out
from labkit import UsageError
from labkit.data import ImageData, Split


def data(n: int) -> ImageData:
    """Picture i is all i, and so is its label, modulo 10."""
    x = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 1, 2, 3)).copy()
    split = Split(x, np.arange(n) % 10)
    return ImageData("set", "embedded", split, Split(x[:3], np.arange(3)), tuple("0123456789"))


def test_the_two_parts_are_the_whole_and_do_not_overlap() -> None:
    whole = data(200)
    kept, valid = hold_out(whole, 0.25)
    assert (len(kept.train), len(valid)) == (150, 50)
    for split in (kept.train, valid):
        np.testing.assert_array_equal(split.x[:, 0, 0, 0] % 10, split.y)
    together = np.concatenate([kept.train.x, valid.x])[:, 0, 0, 0]
    assert sorted(together) == list(range(200))
    assert set(valid.y) == set(range(10)), "drawn at random, not the last ones"
    assert kept.test is whole.test
    assert len(whole.train) == 200


def test_the_cut_is_the_same_every_time() -> None:
    assert np.array_equal(hold_out(data(50), 0.1)[1].x, hold_out(data(50), 0.1)[1].x)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_cut_that_leaves_nothing_on_one_side_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="must leave at least one on either side"):
        hold_out(data(20), share)
