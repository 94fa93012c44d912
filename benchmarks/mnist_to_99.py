"""Week 3's recipe against that of pytorch/examples: seconds of training until 99.0 % on MNIST.

    python benchmarks/mnist_to_99.py [--seeds 3] [--steps 260] [--epochs 14] [--loader]

Theirs is the published recipe of pytorch/examples, mnist/main.py, written anew: two convolutions
and two linear layers with dropout, Adadelta at rate 1.0 that falls by 0.7 an epoch, batches of 64,
pixels standardised. It is tested after every epoch and stops at the first that reaches 99.0 %. Ours
is week 3's network at width 24 with its augmentation, one-cycle schedule and bf16 where the
hardware has it; its schedule is `--steps` long, and it is tested once, at the end. Testing is not
counted on either side. Both take batches from one tensor in memory; `--loader` feeds theirs through
torchvision's dataset and a DataLoader instead, as published.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.data import ImageData, batch_indices, load
from labkit.machine import device
from pytorch_mastery import CNN, accuracy, one_cycle, random_shift

GOAL = 99.0
BATCH, LR, WEIGHT_DECAY, WIDTH, SHIFT = 256, 6e-3, 0.05, 24, 2


class ExampleNet(nn.Module):
    """The network of pytorch/examples. Float (B, 1, 28, 28) in [0, 1] -> logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net((images - 0.1307) / 0.3081)
        return logits


def ours(data: ImageData, steps: int, seed: int) -> tuple[float, float]:
    """Seconds of training, and the test accuracy at its end in %."""
    torch.manual_seed(seed)
    x, y = data.train.tensors()
    precision = device.resolve_precision("auto", torch.device("cpu"))
    begun = time.perf_counter()
    model = CNN(1, 10, WIDTH, data.mean, data.std)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=WEIGHT_DECAY, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = one_cycle(step, steps, LR)
        index = torch.from_numpy(batch_indices(len(x), BATCH, step, seed))
        images = random_shift(x[index], SHIFT).float() / 255
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - begun
    return seconds, accuracy(model, *data.test.tensors())


def memory_batches(data: ImageData, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of float images (64, 1, 28, 28) in [0, 1] and labels, from one tensor."""
    x, y = data.train.tensors()
    generator = torch.Generator().manual_seed(1000 * seed + epoch)
    for index in torch.randperm(len(x), generator=generator).split(64):
        yield x[index].float() / 255, y[index]


def loader_batches() -> torch.utils.data.DataLoader:
    """The published input pipeline: torchvision's dataset, a DataLoader in this process."""
    from torchvision import datasets, transforms

    from labkit import paths

    for folder in paths.data_folders():
        if (folder / "MNIST").is_dir():
            mnist = datasets.MNIST(str(folder), transform=transforms.ToTensor())
            return torch.utils.data.DataLoader(mnist, batch_size=64, shuffle=True)
    sys.exit("MNIST is not on this machine; set LAB_DATA to a folder that has it")


def theirs(data: ImageData, epochs: int, seed: int, loader: bool) -> tuple[float, float]:
    """Seconds of training until the goal, or for all epochs, and the test accuracy then."""
    torch.manual_seed(seed)
    model, seconds, score = ExampleNet(), 0.0, 0.0
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    batches = loader_batches() if loader else None
    for epoch in range(epochs):
        begun = time.perf_counter()
        model.train()
        for images, labels in batches or memory_batches(data, seed, epoch):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - begun
        score = accuracy(model, *data.test.tensors())
        print(f"    theirs, epoch {epoch + 1}: {seconds:6.1f} s  {score:.2f} %", flush=True)
        if score >= GOAL:
            break
    return seconds, score


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("seeds", 3), ("steps", 260), ("epochs", 14)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--loader", action="store_true", help="feed theirs through a DataLoader")
    args = parser.parse_args()
    data = load("mnist", kind=ImageData)
    assert isinstance(data, ImageData)
    ours(data, 5, 0)  # first calls set kernels up
    ratios = []
    for seed in range(args.seeds):
        mine, peer = (
            ours(data, args.steps, seed),
            theirs(data, args.epochs, seed, args.loader),
        )
        for name, (seconds, score) in (("ours", mine), ("pytorch/examples", peer)):
            missed = "" if score >= GOAL else f"   below {GOAL} %: not comparable"
            print(f"seed {seed}  {name:16}  {seconds:6.1f} s  {score:.2f} %{missed}", flush=True)
        ratios.append(peer[0] / mine[0])
    print(
        f"to {GOAL} %, pytorch/examples takes {statistics.median(ratios):.1f} times as long "
        f"(median of {len(ratios)}; {min(ratios):.1f} to {max(ratios):.1f}; "
        f"{torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
