"""The ways to feed a network give the same batches; workers have seeds of their own."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pytorch_mastery import data_pipeline


def images(n: int = 37) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randint(256, (n, 1, 6, 6), dtype=torch.uint8), torch.arange(n)


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_and_memory_give_identical_batches(workers: int) -> None:
    x, y = images()
    indices = data_pipeline.order(len(x), seed=3)
    ours = list(data_pipeline.memory_batches(x, y, 8, indices))
    theirs = list(data_pipeline.loader(x, y, 8, indices, workers))
    assert [len(labels) for _, labels in ours] == [8, 8, 8, 8, 5]
    for (a, b), (c, d) in zip(ours, theirs, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
    assert torch.cat([labels for _, labels in ours]).tolist() == indices
    torch.testing.assert_close(ours[0][0] * 255, x[indices[:8]].float())


def test_order_is_a_permutation_that_the_seed_decides() -> None:
    a = data_pipeline.order(50, seed=0)
    assert sorted(a) == list(range(50))
    assert a == data_pipeline.order(50, seed=0)
    assert a != data_pipeline.order(50, seed=1)
    assert a != list(range(50))


class Noise(Dataset[float]):
    """An example is one draw of the set's own generator: what a random augmentation does."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> float:
        return float(self.rng.random())


def draws(seed: int, init: Callable[[int], None] | None) -> list[float]:
    loader = DataLoader(
        Noise(),
        batch_size=2,
        num_workers=2,
        worker_init_fn=init,
        generator=torch.Generator().manual_seed(seed),
    )
    return torch.cat(list(loader)).tolist()


def test_workers_draw_different_numbers_and_the_same_again() -> None:
    first = draws(0, data_pipeline.seed_worker)
    assert len(set(first)) == 8
    assert draws(0, data_pipeline.seed_worker) == first
    assert draws(1, data_pipeline.seed_worker) != first
    assert len(set(draws(0, None))) == 4, "without it, two workers repeat each other's draws"


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="37 images and 5 labels"):
        data_pipeline.ArrayDataset(images()[0], torch.zeros(5))


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert data_pipeline.main(["--images", "64", "--batch-size", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("images/s" in line for line in lines) == 3


@pytest.mark.parametrize("words", [["--imgs", "3"], ["--images", "0"]])
def test_wrong_options_end_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        data_pipeline.main(words)
    assert stop.value.code == 2
