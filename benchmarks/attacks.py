"""This lab's PGD against foolbox's, and its integrated gradients against captum's.

    python benchmarks/attacks.py
    python benchmarks/attacks.py --images 500 --rounds 7

All use one network, trained here for a moment on MNIST (digits without it), the same images and
as many steps. The two sides take turns; printed are the median over rounds of the seconds, their
spread (the largest over the smallest), and what must agree: how many images each attack fools, and
the attributions themselves.

Two sizes of epsilon are attacked. At the small one few images are fooled, so both sides do the same
work. At the large one ours leaves alone what is fooled, which the model's answers after each step
show; foolbox goes on with all images to the last step.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import captum.attr
import foolbox
import torch
import torch.nn.functional as F
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from labkit.data import ImageData, batch_indices, load
from robustness import attacks, explanations
from robustness.model import make_network


def trained(images: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network after 150 steps of plain training, and test images with their labels."""
    torch.manual_seed(0)
    data = load("mnist", "digits", ImageData)
    assert isinstance(data, ImageData)
    x, y = data.train.tensors()
    model = make_network("small", (x.shape[1], x.shape[2], x.shape[3]), len(data.classes), 16)
    adam = torch.optim.Adam(model.parameters(), 2e-3)
    for step in range(150):
        index = torch.tensor(batch_indices(len(x), 128, step, 0))
        loss = F.cross_entropy(model(x[index].float() / 255), y[index])
        adam.zero_grad()
        loss.backward()
        adam.step()
    x_test, y_test = data.test.tensors()
    return model.eval(), x_test[:images].float() / 255, y_test[:images]


def turns(
    sides: dict[str, Callable[[], Tensor]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of each side in each round, after one round that is not counted, and its result."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Tensor] = {}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            began = time.perf_counter()
            results[name] = run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds, results


def show(what: str, seconds: dict[str, list[float]], note: str) -> float:
    """Print a comparison; returns the peer's median over ours."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours, peer = medians
    print(what)
    for name, values in seconds.items():
        spread = max(values) / min(values)
        print(f"  {name:8} {1e3 * medians[name]:8.1f} ms   spread {spread:.2f}")
    print(f"  {peer} takes {medians[peer] / medians[ours]:.2f} times as long; {note}")
    return medians[peer] / medians[ours]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, x, y = trained(args.images)
    print(f"{len(x)} images, {args.steps} steps, {args.threads} threads")

    peer: Any = PyTorchModel(model, bounds=(0, 1), device="cpu")
    good = True
    for epsilon in (0.02, 0.3):
        size = 2.5 * epsilon / args.steps
        attack: Any = foolbox.attacks.LinfPGD(abs_stepsize=size, steps=args.steps)

        def ours(epsilon: float = epsilon, size: float = size) -> Tensor:
            noise = attacks.random_start(x, epsilon, "linf")
            return attacks.pgd(model, x, y, epsilon, args.steps, size, start=noise)

        def theirs(epsilon: float = epsilon, attack: Any = attack) -> Tensor:
            found: Tensor = attack.run(peer, x, y, epsilon=epsilon)
            return found

        seconds, found = turns({"ours": ours, "foolbox": theirs}, args.rounds)
        right = {k: int(attacks.predicted(model, v, y).sum()) for k, v in found.items()}
        note = f"right after it: ours {right['ours']}, foolbox {right['foolbox']}"
        ratio = show(f"PGD at epsilon {epsilon}", seconds, note)
        good &= ratio >= 0.95 and abs(right["ours"] - right["foolbox"]) <= 0.02 * len(x)

    black, few = torch.zeros_like(x), x[:50]
    integrated: Any = captum.attr.IntegratedGradients(model)

    def mine() -> Tensor:
        return explanations.integrated_gradients(model, few, y[:50], black[:50], 50)

    def captums() -> Tensor:
        found: Tensor = integrated.attribute(
            few, black[:50], target=y[:50], n_steps=50, method="riemann_middle"
        )
        return found

    seconds, found = turns({"ours": mine, "captum": captums}, args.rounds)
    apart = (found["ours"] - found["captum"]).abs().max().item()
    note = f"attributions differ by {apart:.1e} at most"
    ratio = show("integrated gradients of 50 images, 50 steps", seconds, note)
    return 0 if good and ratio >= 0.95 and apart < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
