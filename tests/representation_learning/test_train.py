"""The week as a person runs it, at size smoke; and what the records say about the methods."""

import contextlib
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from labkit.state import checkpoint, tracked
from representation_learning.model import make_encoder
from representation_learning.train import Config, make_optimizer, objective, train
from tests.conftest import Finished, same

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = {
    "simclr": {"training", "shape", "views", "neighbours", "map"},
    "autoencoder": {"training", "reconstructions", "neighbours", "map"},
    "supervised": {"training", "views", "neighbours", "map"},
    "random": {"neighbours", "map"},
    "pixels": {"neighbours", "map"},
}


def test_smoke_learns_without_labels(lab_run: Any) -> None:
    """Far from chance, which is a loss of ln(2 N - 1) = 4.84 for N = 64, and 0.8 % found."""
    done = lab_run.once("representation_learning", "+size=smoke")
    assert done.returncode == 0, done.output
    measured(done, "simclr")
    assert done.metrics[0]["train/loss"] > 4.5
    assert done.record["metrics"]["train_loss"] < 4.4
    assert done.record["metrics"]["partners_found"] > 5


@pytest.mark.parametrize("method", ["autoencoder", "supervised", "random", "pixels"])
def test_every_other_method_is_measured(lab_run: Any, method: str) -> None:
    """On the digits: a third as many images to fit a probe to, and grey ones become coloured."""
    words = ("+size=smoke", "data=digits", f"method={method}", "steps=4")
    done = lab_run.once("representation_learning", *words)
    assert done.returncode == 0, done.output
    measured(done, method)


def measured(done: Finished, method: str) -> None:
    """The record of a run has the method's numbers, and samples/ its pictures."""
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert 0 < metrics["probe_accuracy"] <= 100
    assert ("train_loss" in metrics) == (method not in ("random", "pixels"))
    assert {p.stem for p in (done.dir / "samples").iterdir()} == PICTURES[method]


def test_resumes_to_the_same_bits(resume_check: Any) -> None:
    """With LARS, whose state is the lab's own."""
    words = ("data=digits", "steps=12", "optimizer=lars", "lr=0.5")
    resume_check("representation_learning", "+size=smoke", *words)


@pytest.mark.parametrize("method", ["simclr", "autoencoder", "supervised"])
@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_every_method_goes_on_from_a_checkpoint_to_the_same_bits(
    tmp_path: Path, method: Any, optimizer: Any
) -> None:
    """Saved after two steps, loaded into another model: the next two steps are the same."""
    cfg = Config(network="small", width=4, head_hidden=8, head_dim=4, method=method,
                 optimizer=optimizer, lr=0.1)  # fmt: skip
    x = torch.randint(256, (24, 3, 32, 32), dtype=torch.uint8,
                      generator=torch.Generator().manual_seed(0))  # fmt: skip
    y = torch.arange(24) % 3

    def make(seed: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        model = objective(cfg, make_encoder(cfg.network, cfg.width, x), 3)
        return {"model": model, "optimizer": make_optimizer(cfg, trained(model))}

    def go(things: dict[str, Any], steps: range) -> list[float]:
        lost = []
        for step in steps:
            torch.manual_seed(step)  # the augmentation draws
            part = slice(6 * step, 6 * step + 6)
            loss, _ = things["model"](x[part], y[part], contextlib.nullcontext)
            things["optimizer"].zero_grad()
            loss.backward()
            things["optimizer"].step()
            lost.append(loss.item())
        return lost

    one = make(0)
    go(one, range(2))
    states = {name: tracked.get_state(thing) for name, thing in one.items()}
    checkpoint.save(tmp_path, 2, states)
    saved = checkpoint.load_latest(tmp_path)
    assert saved is not None
    other = make(1)
    for name, thing in other.items():
        tracked.set_state(thing, saved[name], name)
    assert go(one, range(2, 4)) == go(other, range(2, 4))
    assert same(*(things["model"].state_dict() for things in (one, other)))


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("temperature=0",), "temperature must be > 0"),
        (("batch_size=1",), "batch_size must be 2 or more, got 1"),
        (("crop=1.5",), "crop must be from 0 to 1"),
        (("method=simclar",), "did you mean simclr?"),
        (("method=pixels", "probe=projection"), "needs method=simclr"),
        (("data=pydoc",), "pydoc is a text, and this week wants a set of images"),
        (("data=digits", "batch_size=5000"), "batch_size=5000"),
    ],
)
def test_settings_out_of_range_are_refused(
    words: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", *words]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/*/result.json"))


def test_simclr_is_above_every_other_representation_without_labels() -> None:
    """On record, with the same encoder, work and images: mean over seeds of the linear probe."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "results/representation_learning"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    kept = [file for file in files if file.endswith(".json") and "/curves/" not in file]
    records = [json.loads((ROOT / file).read_text()) for file in kept]
    probe = {
        method: [
            r["metrics"]["probe_accuracy"]
            for r in records
            if r["size"] == "tiny" and r["data"]["name"] == "cifar10_12k"
            and r["ended"] == "finished" and r["experiment"] is None
            and r["config"]["method"] == method
        ]
        for method in PICTURES
    }  # fmt: skip
    means = {method: statistics.mean(values) for method, values in probe.items()}
    for method in ("autoencoder", "random", "pixels"):
        assert means["simclr"] > means[method] + 5, means
