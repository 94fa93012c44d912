"""A made-up week of two linear layers, of which everything is known in closed form."""

from itertools import pairwise

IN, HIDDEN, OUT, BATCH = 12, 32, 5, 64

WEEK = '''
"""A made-up week of two linear layers."""
from dataclasses import dataclass
from pathlib import Path

from labkit import LabConfig, Run, lab, paths

paths.CONFIGS = Path(__file__).parent.parent / "configs"


@dataclass
class Config(LabConfig):
    """A made-up week."""

    steps: int = 1000
    """Steps."""
    batch_size: int = 64
    """Rows."""
    stop_after: int = 1000
    """Step at which it stops early."""


@lab("made_up", Config)
def train(cfg: Config, run: Run) -> None:
    import torch

    net = torch.nn.Sequential(
        torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5)
    )
    average = torch.nn.Linear(12, 5)
    opt = torch.optim.SGD(net.parameters(), 0.1)
    run.track(net=net, opt=opt, average=average)
    x = torch.randn(cfg.batch_size, 12, requires_grad=True)
    for step in run.steps(cfg.steps):
        loss = net(x).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        run.log({"train/loss": loss}, step)
        if step >= cfg.stop_after:
            run.stop()
    run.save()
    run.figure("never", None)
    run.publish(lambda folder: (folder / "x").touch())
    run.result({"loss": 1.0})
'''


def linear_flops(rows: int, *widths: int) -> int:
    """Two for each multiply-add, once forward and twice backward (inputs, weights)."""
    return sum(3 * 2 * rows * a * b for a, b in pairwise(widths))
