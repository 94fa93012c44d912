"""Two processes, or micro-batches, must train the model that one process and one batch train."""

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Lab

WORDS = (
    "+size=smoke", "steps=8", "batch_size=8", "log_every=1", "evaluations=1", "eval_tokens=500",
    "sample_length=4", "prompts=[the]",
    "optimizer=adamw",  # Muon's matrix products in bf16 make more of a rounding
)  # fmt: skip


class Outcome:
    """What one run left behind."""

    def __init__(self, home: Path) -> None:
        from labkit.state import checkpoint

        (self.folder,) = (path.parent for path in home.glob("runs/*/*/*/.hydra"))
        self.record = json.loads((self.folder / "result.json").read_text())
        rows = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        self.losses = [row["train/loss"] for row in rows if "train/loss" in row]
        state = checkpoint.load_latest(self.folder / "checkpoint")
        assert state is not None
        self.weights: dict[str, Any] = state["tracked"]["model"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One process, every batch at once."""
    return outcome(Lab(tmp_path_factory.mktemp("alone")), "micro_batch=null")


def outcome(lab: Lab, *words: str) -> Outcome:
    done = lab("pretraining", *WORDS, *words)
    assert done.returncode == 0, done.output
    return Outcome(lab.home)


def same_training(one: Outcome, other: Outcome) -> None:
    """The loss of every step, and the weights at the end, to the rounding of sums."""
    assert len(one.losses) == len(other.losses) == 8
    assert one.losses[0] - one.losses[-1] > 0.1, "nothing was learned, so nothing is compared"
    assert one.losses != other.losses, "equal bits: both did the same, so nothing is compared"
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
    for name, weight in one.weights.items():
        np.testing.assert_allclose(weight, other.weights[name], atol=2e-3, err_msg=name)
    assert one.record["metrics"]["val_loss"] == pytest.approx(
        other.record["metrics"]["val_loss"], rel=1e-4
    )


def test_gradient_accumulation_is_the_full_batch(alone: Outcome, lab_run: Lab) -> None:
    """Also when the last part is smaller: 8 = 3 + 3 + 2."""
    same_training(alone, outcome(lab_run, "micro_batch=3"))


def test_two_processes_train_the_model_of_one(alone: Outcome, lab_run: Any) -> None:
    """With micro-batches in each, so that gradients are exchanged once a step and not more."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # The variables that torchrun sets; tests/labkit/test_app.py starts ranks by torchrun itself.
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = ["-m", "pretraining.train", *WORDS, "micro_batch=2"]
    ranks = [lab_run.begin(*command, RANK=str(r), LOCAL_RANK=str(r), **meet) for r in range(2)]
    for process in ranks:
        code, output = process.wait(300)
        assert code == 0, output
    both = Outcome(lab_run.home)
    assert both.record["processes"] == 2
    assert alone.record["processes"] == 1
    same_training(alone, both)
    assert len(list(lab_run.home.glob("results/pretraining/*.json"))) == 1


@pytest.mark.parametrize("processes", [2, 4])
def test_every_row_of_the_batch_goes_to_one_process(
    monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """Processes that all took the whole batch would have the right loss, and no speed from it."""
    import torch

    from labkit.learning.parallel import DataParallel

    x = torch.arange(24).view(8, 3)
    seen = []
    for rank in range(processes):
        monkeypatch.setenv("RANK", str(rank))
        parallel = object.__new__(DataParallel)
        parallel.processes = processes
        for inputs, targets in parallel.micro_batches(x, x + 100, 3):
            assert torch.equal(inputs + 100, targets)
            seen += inputs.tolist()
    assert sorted(seen) == x.tolist()


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from labkit import UsageError
    from labkit.learning.parallel import DataParallel

    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="cannot be shared by 3 processes; try batch_size=6"):
        DataParallel(torch.nn.Linear(1, 1), torch.device("cpu"), 8)
