"""Scenes: what is divided, what captions say, and that pictures show it."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal import scenes
from multimodal.scenes import ABOVE, ALONE, LEFT, Scenes


def test_combinations_are_divided_so_that_each_colour_and_shape_is_in_training() -> None:
    parts = [scenes.combinations(split) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [40, 8, 16]
    assert sorted(np.concatenate(parts)) == list(range(64))
    for part, times in zip(parts, (5, 1, 2), strict=True):
        assert np.bincount(part // 8).tolist() == [times] * 8
        assert np.bincount(part % 8).tolist() == [times] * 8


def test_training_scenes_never_show_what_is_held_out() -> None:
    found = scenes.draw(2000, scenes.combinations("train"), 0.4, seed=3)
    shown = np.concatenate([found.first, found.second[found.second >= 0]])
    assert set(shown) == set(scenes.combinations("train"))
    assert 0.35 < (found.relation == ALONE).mean() < 0.45
    assert ((found.second == -1) == (found.relation == ALONE)).all()
    assert (found.first != found.second).all()
    again = scenes.draw(2000, scenes.combinations("train"), 0.4, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_equal_meaning_is_equal_captions() -> None:
    found = scenes.draw(3000, np.arange(64), 0.5, seed=0)
    by_meaning: dict[int, set[tuple[str, ...]]] = {}
    captions = scenes.captions_of(found)
    for meaning, texts in zip(found.meaning, captions, strict=True):
        by_meaning.setdefault(int(meaning), set()).add(texts)
    assert all(len(texts) == 1 for texts in by_meaning.values())
    assert len({texts for each in by_meaning.values() for texts in each}) == len(by_meaning)


def test_captions_say_what_is_where() -> None:
    red_circle, blue_square, orange_moon = 0, 5 * 8 + 1, 8 + 7
    found = Scenes(
        np.array([red_circle, red_circle, orange_moon]),
        np.array([blue_square, blue_square, -1]),
        np.array([LEFT, ABOVE, ALONE]),
    )
    left, above, alone = scenes.captions_of(found)
    assert left[0] == "a red circle left of a blue square"
    assert left[1] == "a blue square right of a red circle"
    assert above[1] == "a blue square below a red circle"
    assert alone[0] == "an orange moon"
    assert len({*left, *above, *alone}) == 12
    other = scenes.captions_of(found.take(np.array([0])).swapped())[0]
    assert other[0] == "a blue square left of a red circle"
    assert sorted(" ".join(other[:1]).split()) == sorted(left[0].split())


@pytest.mark.parametrize("side", [24, 32])
@pytest.mark.parametrize("relation", [LEFT, ABOVE])
def test_pictures_show_the_relation(side: int, relation: int) -> None:
    """Where the red and the blue pixels are, on average."""
    n, red, blue = 40, 0 * 8 + 1, 5 * 8 + 1
    full = np.full(n, relation)
    found = Scenes(np.full(n, red), np.full(n, blue), full)
    x = scenes.render(found, side, seed=1).astype(float)
    assert x.shape == (n, 3, side, side)
    grid = np.arange(side)
    for picture in x:
        place = {}
        for name, channel in (("red", 0), ("blue", 2)):
            strong = picture[channel] > 130
            assert strong.any()
            place[name] = np.array([(strong.sum(0) @ grid), (strong.sum(1) @ grid)]) / strong.sum()
        apart = place["blue"] - place["red"]  # x to the right, y down
        along, across = (apart[0], apart[1]) if relation == LEFT else (apart[1], apart[0])
        assert along > abs(across)


def test_every_shape_and_colour_differs() -> None:
    every = scenes.singles(np.arange(64))
    x = scenes.render(every, 32, seed=0)
    assert x.dtype == np.uint8
    assert len({picture.tobytes() for picture in x}) == 64
    bright = x.max(axis=(2, 3)) / 255  # the object is brighter than its ground in its own colour
    colours = np.array(list(scenes.COLOURS.values()))
    nearest = ((bright[:, None] - colours) ** 2).sum(-1).argmin(1)
    assert (nearest == np.arange(64) // 8).mean() > 0.8
    areas = (x.max(axis=1) > 140).sum(axis=(1, 2))
    assert areas.min() > 8
    assert np.array_equal(x, scenes.render(every, 32, seed=0))
    assert not np.array_equal(x, scenes.render(every, 32, seed=1))
    assert len(scenes.render(every.take(np.arange(0)), 32, 0)) == 0


def test_pairs_of_a_gallery_are_distinct() -> None:
    found = scenes.distinct_pairs(300, scenes.combinations("test"), seed=0)
    assert len(set(found.meaning)) == len(found.first) == 300
    assert (found.first != found.second).all()
    assert len(scenes.distinct_pairs(10_000, np.arange(4), 0).first) == 4 * 3 * 2


def test_an_opposite_is_nearly_the_same() -> None:
    among = scenes.combinations("train")
    found = scenes.draw(600, among, 0.5, seed=2)
    other = scenes.opposites(found, among, seed=0)
    assert np.array_equal(other.relation, found.relation)
    one = found.relation == ALONE
    same_colour, same_shape = (
        a == b
        for a, b in ((found.first // 8, other.first // 8), (found.first % 8, other.first % 8))
    )
    assert (same_colour != same_shape)[one].all()
    assert same_colour[one].any()
    assert same_shape[one].any()
    assert set(other.first) <= set(among)
    assert (other.second[one] == -1).all()
    assert np.array_equal(other.first[~one], found.second[~one])
    assert np.array_equal(other.second[~one], found.first[~one])
    alone = scenes.opposites(scenes.singles([3]), [3, 12], seed=0)
    assert alone.first.tolist() == [3], "12 shares neither colour nor shape"
