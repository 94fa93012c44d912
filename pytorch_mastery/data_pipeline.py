"""The ways that PyTorch offers to load data, side by side.

    python -m pytorch_mastery.data_pipeline

A `DataLoader` asks a `Dataset` for one example after another and stacks them. It is needed when
examples must be decoded from files or do not fit into memory; worker processes then hide that time.
For a set that fits, one index into one tensor makes the whole batch, many times faster.

Workers: each is a process with a copy of the data set. In each, PyTorch seeds the global generators
of torch, Python and NumPy, every worker differently. It does not know a generator that the data
set has of its own: that one is copied as well, and all workers make the same "random"
augmentations. `seed_worker` corrects this.

pin_memory: copying to a GPU is asynchronous only from page-locked memory. With `pin_memory=True`
the loader copies each batch there, and `batch.to("cuda", non_blocking=True)` then overlaps with
computing. Without a GPU it only warns, so it is off here unless there is one.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import DataLoader

Batch = tuple["Tensor", "Tensor"]


class ArrayDataset:
    """A map-style data set: example i is (float image (C, H, W) in [0, 1], label).

    It has `__len__` and `__getitem__`, which is all that a DataLoader asks for.
    """

    def __init__(self, x: "Tensor", y: "Tensor") -> None:
        if len(x) != len(y):
            raise ValueError(f"as many labels as images, got {len(x)} images and {len(y)} labels")
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Batch:
        return self.x[i].float() / 255, self.y[i]


def seed_worker(worker: int) -> None:
    """If the data set has a NumPy generator `rng`, give this worker's copy one of its own.

    The seed is the one that PyTorch made for the worker: it differs by worker and by epoch, and
    depends on the loader's generator alone. Pass this as `worker_init_fn`.
    """
    import numpy as np
    import torch
    from torch.utils.data import get_worker_info

    info = get_worker_info()
    if info is not None and hasattr(info.dataset, "rng"):
        info.dataset.rng = np.random.default_rng(torch.initial_seed())


def order(n: int, seed: int) -> list[int]:
    """The order of one epoch: a permutation of 0..n-1 that depends on the seed alone."""
    import torch

    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def loader(
    x: "Tensor", y: "Tensor", batch_size: int, indices: Sequence[int], workers: int = 0
) -> "DataLoader[Batch]":
    """Batches of (images (B, C, H, W) in [0, 1], labels (B,)) in the order of `indices`.

    The last batch may be smaller. `indices` is passed as the Sampler: it is iterated over.
    """
    import torch
    from torch.utils.data import DataLoader

    return DataLoader(
        ArrayDataset(x, y),  # type: ignore[arg-type]
        batch_size,
        sampler=indices,
        num_workers=workers,
        worker_init_fn=seed_worker,
        generator=torch.Generator().manual_seed(0),
        pin_memory=torch.cuda.is_available(),
    )


def memory_batches(
    x: "Tensor", y: "Tensor", batch_size: int, indices: Sequence[int]
) -> Iterator[Batch]:
    """The same batches, each by one index into the tensor: x uint8 (N, C, H, W), y (N,)."""
    import torch

    for index in torch.as_tensor(indices).split(batch_size):
        yield x[index].float() / 255, y[index]


def images_per_second(x: "Tensor", y: "Tensor", batch_size: int) -> dict[str, float]:
    """Images per second of one epoch, for each way; the start of the workers is included."""
    indices = order(len(x), seed=0)
    ways = {
        "tensor in memory": lambda: memory_batches(x, y, batch_size, indices),
        "DataLoader, 0 workers": lambda: loader(x, y, batch_size, indices),
        "DataLoader, 2 workers": lambda: loader(x, y, batch_size, indices, workers=2),
    }
    rates = {}
    for name, batches in ways.items():
        start = time.perf_counter()
        count = sum(len(labels) for _, labels in batches())
        rates[name] = count / (time.perf_counter() - start)
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pytorch_mastery.data_pipeline", description="Ways to feed a network, timed."
    )
    parser.add_argument("--images", type=int, default=20_000, help="in one epoch (of 28 x 28)")
    parser.add_argument("--batch-size", type=int, default=256)
    args = parser.parse_args(argv)
    if min(args.images, args.batch_size) < 1:
        parser.error("--images and --batch-size must be at least 1")
    import torch

    x = torch.randint(256, (args.images, 1, 28, 28), dtype=torch.uint8)
    y = torch.randint(10, (args.images,))
    print(f"One epoch of {args.images} images in batches of {args.batch_size}, nothing computed")
    for name, rate in images_per_second(x, y, args.batch_size).items():
        print(f"  {name:24} {rate:12,.0f} images/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
