"""Two processes must train the model that one process trains."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffusion import DDPM, RectifiedFlow
from tests.conftest import Lab

WORDS = (
    "+size=smoke", "steps=8", "batch_size=8", "log_every=1", "samples=20", "width=8",
    "precision=fp32", "muon_lr=1e-3",
)  # fmt: skip


def outcome(home: Path) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    """Losses of all steps, weights at the end, and the record."""
    from labkit.state import checkpoint

    (folder,) = (path.parent for path in home.glob("runs/*/*/*/.hydra"))
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    state = checkpoint.load_latest(folder / "checkpoint")
    assert state is not None
    record = json.loads((folder / "result.json").read_text())
    return [row["train/loss"] for row in rows], state["tracked"]["model"], record


def test_two_processes_train_the_model_of_one(lab_run: Lab, tmp_path: Path) -> None:
    """The loss of every step, and the weights at the end, to the rounding of sums."""
    alone = Lab(tmp_path / "alone")
    alone.home.mkdir()
    done = alone("diffusion", *WORDS)
    assert done.returncode == 0, done.output
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        lab_run.begin("-m", "diffusion.train", *WORDS, RANK=str(r), LOCAL_RANK=str(r), **meet)
        for r in range(2)
    ]
    for process in ranks:
        code, output = process.wait(300)
        assert code == 0, output
    (one, weights, record), (both, others, shared) = outcome(alone.home), outcome(lab_run.home)
    assert (record["processes"], shared["processes"]) == (1, 2)
    assert len(one) == len(both) == 8
    assert one[0] > one[-1], "nothing was learned, so nothing is compared"
    assert one != both, "equal bits: both did the same, so nothing is compared"
    np.testing.assert_allclose(one, both, rtol=1e-4)
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, others[name], atol=2e-3, err_msg=name)


@pytest.mark.parametrize("process", [DDPM("v"), RectifiedFlow()])
def test_rows_of_a_batch_have_the_noise_that_the_whole_batch_has(process: Any) -> None:
    """The mean over all rows of the losses of parts is the loss of the whole."""

    class Blur(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return x.mean(3, keepdim=True) * t.view(-1, 1, 1, 1) + labels.view(-1, 1, 1, 1)

    x, labels = torch.randn(6, 1, 4, 5), torch.arange(6)

    def loss(*rows: slice) -> float:
        torch.manual_seed(1)
        return float(process.loss(Blur(), x, labels, *rows))

    parts = [loss(slice(first, None, 3)) for first in range(3)]
    assert len(set(parts)) == 3
    assert np.mean(parts) == pytest.approx(loss(), rel=1e-5)
    assert loss(slice(0, 1)) != pytest.approx(loss(), rel=1e-3)
