"""A made-up week for the tests of labkit: a small network with everything that resume finds hard.

Run as a script it is the week's command line: batch norm, dropout, Muon, bf16 and a NumPy
generator, all of which must come back to the last bit. `sleep` makes room for signals.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit import LabConfig, Run, UsageError, lab, paths

paths.CONFIGS = Path(__file__).parent / "configs"


@dataclass
class Config(LabConfig):
    """A made-up week."""

    steps: int = 100_000
    """Training steps."""
    lr: float = 0.01
    """Learning rate."""
    data: str = "digits"
    """Training set."""
    kind: Literal["plain", "fancy"] = "plain"
    """Which of two."""
    sleep: float = 0.0
    """Seconds to waste in each step."""
    forget: bool = False
    """Whether to leave out the result."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps={self.steps} must be at least 1; try steps=100")


@lab("toy", Config, distributed=True)
def train(cfg: Config, run: Run) -> None:
    import numpy as np
    import torch
    from torch import nn

    from labkit.data import ImageData, batch_indices
    from labkit.learning.muon import Muon

    data = run.data(cfg.data, ImageData)
    x, y = data.train.tensors(run.device)
    x = x.float() / 255
    net = nn.Sequential(
        nn.Conv2d(x.shape[1], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
        nn.Flatten(), nn.LazyLinear(10),
    )  # fmt: skip
    net(x[:2])
    muon = Muon([net[5].weight], lr=cfg.lr)
    adam = torch.optim.AdamW(
        [p for p in net.parameters() if p is not net[5].weight], cfg.lr, fused=True
    )
    rng = np.random.default_rng(cfg.seed)
    history = {"losses": [], "sum": np.zeros(1)}
    run.track(net=net, muon=muon, adam=adam, rng=rng, history=history)
    for step in run.steps(cfg.steps):
        index = torch.from_numpy(batch_indices(len(x), 64, step, cfg.seed).copy())
        noise = torch.from_numpy(rng.normal(size=1).astype(np.float32)) * 0.1 + torch.randn(1) * 0.1
        with run.autocast():
            loss = nn.functional.cross_entropy(net(x[index] + noise), y[index])
        for opt in (muon, adam):
            opt.zero_grad()
        loss.backward()
        for opt in (muon, adam):
            opt.step()
        history["losses"].append(loss.item())
        history["sum"] += loss.item()
        run.log({"train/loss": loss}, step)
        time.sleep(cfg.sleep)
    run.save()
    net.eval()
    test_x, test_y = data.test.tensors(run.device)
    with torch.no_grad():
        accuracy = (net(test_x.float() / 255).argmax(1) == test_y).float().mean()
    run.plot("loss", "train/loss", "valid/loss")  # which nothing logs
    run.publish(lambda folder: (folder / "weights").write_bytes(b"w"))
    if not cfg.forget:
        run.result({"accuracy": accuracy, "loss_sum": history["sum"][0], "noise": torch.randn(1)})


if __name__ == "__main__":
    sys.exit(train())
