"""Block masks against sets of patches, counted one by one."""

import pytest
import torch
from torch import Tensor

from ebm_jepa import masks
from ebm_jepa.masks import split


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layout(batch: int, count: int, rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A context block and `count` targets of 2 x 1 patches for each picture."""
    draws = generator(seed)
    context = masks.blocks(batch, (rows - 1, columns), rows, columns, draws)
    targets = masks.blocks(batch * count, (2, 1), rows, columns, draws)
    return context, targets.view(batch, count, rows, columns)


def patches(mask: Tensor) -> set[int]:
    """Numbers r C + c of the patches that are True in (R, C)."""
    rows, columns = mask.shape
    return {r * columns + c for r in range(rows) for c in range(columns) if mask[r, c]}


@pytest.mark.exercise("masks.split")
@pytest.mark.parametrize(
    ("batch", "count", "rows", "columns"), [(1, 1, 3, 4), (6, 3, 4, 5), (5, 2, 6, 3)]
)
def test_split_against_sets(batch: int, count: int, rows: int, columns: int) -> None:
    context, targets = layout(batch, count, rows, columns)
    kept = context.clone(), targets.clone()
    seen, asked = split(context, targets, generator(1))
    assert seen.dtype == asked.dtype == torch.int64
    allowed = []
    for b in range(batch):
        hidden = set().union(*(patches(t) for t in targets[b]))
        allowed.append(patches(context[b]) - hidden)
        for m in range(count):
            assert asked[b, m].tolist() == sorted(patches(targets[b, m]))
    assert asked.shape == (batch, count, 2)
    assert seen.shape == (batch, min(map(len, allowed)))
    for row, possible in zip(seen.tolist(), allowed, strict=True):
        assert row == sorted(set(row)), "ascending, none twice"
        assert set(row) <= possible, "in the context block and in no target"
    assert torch.equal(context, kept[0])
    assert torch.equal(targets, kept[1])


@pytest.mark.exercise("masks.split")
def test_each_picture_makes_a_random_choice_of_its_own() -> None:
    """One picture has 2 patches left, all others 9 of 12: each of the 9 must come equally often."""
    n = 3001
    context = torch.ones(n, 3, 4, dtype=torch.bool)
    context[0] = False
    context[0, 0, :3] = True
    targets = torch.zeros(n, 1, 3, 4, dtype=torch.bool)
    targets[:, 0, 0, :3] = True
    targets[0, 0] = False
    targets[0, 0, 0, 0] = targets[0, 0, 2, 2] = targets[0, 0, 2, 3] = True
    seen, _ = split(context, targets, generator())
    assert seen.shape == (n, 2)
    assert seen[0].tolist() == [1, 2]
    counts = seen[1:].flatten().bincount(minlength=12).double() / (n - 1)
    expected = torch.tensor([0.0] * 3 + [2 / 9] * 9, dtype=torch.float64)
    assert (counts - expected).abs().max() < 0.03
    assert len({tuple(row) for row in seen[1:].tolist()}) == 36, "all pairs of 9 occur"


@pytest.mark.exercise("masks.split")
def test_split_depends_on_its_generator_alone() -> None:
    context, targets = layout(8, 2, 6, 6)
    context[0, 3:] = False  # the fewest: the others have a choice
    before = torch.get_rng_state()
    a, b, c = (split(context, targets, generator(seed))[0] for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)
    once = generator(3)
    first = split(context, targets, once)[0]
    assert not torch.equal(first, split(context, targets, once)[0]), "the generator moves on"


@pytest.mark.exercise("masks.split")
def test_targets_that_cover_the_context_are_refused() -> None:
    context, targets = layout(3, 1, 3, 3)
    targets[:] = False
    targets[:, 0, 0, 0] = True
    context[:] = True
    context[1] = False
    context[1, 0, 0] = True
    with pytest.raises(ValueError):
        split(context, targets, generator())
    context[1, 2, 1] = True
    assert split(context, targets, generator())[0][1].tolist() == [7]


def test_blocks_are_rectangles_anywhere_on_the_grid() -> None:
    found = masks.blocks(4000, (2, 3), 4, 5, generator())
    corners = set()
    for mask in found[:400]:
        inside = mask.nonzero()
        top, left = inside.min(dim=0).values.tolist()
        assert bool(mask[top : top + 2, left : left + 3].all())
        assert mask.sum() == 6
        corners.add((top, left))
    assert corners == {(r, c) for r in range(3) for c in range(3)}
    share = found.double().mean(dim=0)
    assert share[0, 0].item() == pytest.approx(1 / 9, abs=0.03)
    assert masks.blocks(2, (4, 5), 4, 5, generator()).all()


@pytest.mark.parametrize(
    ("share", "aspect", "expected"),
    [(0.25, 1.0, (4, 4)), (0.25, 4.0, (8, 2)), (0.25, 0.25, (2, 8)), (1.0, 1.5, (8, 7)),
     (0.001, 1.0, (1, 1))],
)  # fmt: skip
def test_block_size(share: float, aspect: float, expected: tuple[int, int]) -> None:
    assert masks.block_size(share, aspect, 8, 8) == expected


def test_draw_gives_disjoint_masks_and_a_context_of_a_tenth_or_more() -> None:
    for seed in range(20):
        context, targets = masks.draw(16, 7, 8, 4, 0.18, 0.9, generator(seed))
        assert context.shape[1] >= 5
        for row, asked in zip(context, targets, strict=True):
            assert not set(row.tolist()) & set(asked.flatten().tolist())
    again = masks.draw(16, 7, 8, 4, 0.18, 0.9, generator(19))
    assert torch.equal(context, again[0])
    assert torch.equal(targets, again[1])


def test_targets_without_room_for_a_context_are_refused() -> None:
    with pytest.raises(ValueError, match="leave no context on a grid of 2 x 2"):
        masks.draw(4, 2, 2, 4, 0.9, 1.0, generator())
