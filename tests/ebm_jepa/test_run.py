"""The week as a person runs it, at size smoke: training, resuming, what is refused."""

from pathlib import Path

import pytest
import torch

from ebm_jepa import learners
from ebm_jepa.evaluate import density_error
from ebm_jepa.settings import DensitySettings
from ebm_jepa.train import train
from tests.conftest import Lab

METRICS = {
    "jem": {"test_accuracy", "calibration_error", "ood_auroc", "ood_auroc_softmax",
            "ood_auroc_letters", "robust_accuracy"},
    "density": {"log_density_error", "kl", "log_z"},
    "jepa": {"probe_accuracy", "random_accuracy", "probe_gain", "knn_accuracy", "rank"},
}  # fmt: skip
PICTURES = {
    "jem": {"samples.png", "scores.png", "robustness.png", "energies.png"},
    "density": {"density.png"},
    "jepa": {"rank.png", "probes.png"},
}


@pytest.mark.parametrize("method", METRICS)
def test_smoke_trains_measures_and_draws(lab_run: Lab, method: str) -> None:
    words = [] if method == "jem" else [f"method={method}"]
    done = lab_run.once("ebm_jepa", "+size=smoke", *words)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert METRICS[method] <= set(metrics)
    drawn = {p.name for p in (done.dir / "samples").iterdir()}
    assert PICTURES[method] | {"training.png"} <= drawn
    if method == "jem":
        assert metrics["test_accuracy"] > 60
        assert 0 <= metrics["ood_auroc"] <= 1
        assert done.record["data"]["also"][0]["name"] == "shapes"
    if method == "density":
        assert metrics["log_density_error"] < 1
        assert done.record["data"]["name"] == "ring"
    if method == "jepa":
        gain = metrics["probe_accuracy"] - metrics["random_accuracy"]
        assert metrics["probe_gain"] == pytest.approx(gain)


@pytest.mark.parametrize(
    "words",
    [
        ["method=ebm", "ebm.steps=2", "ebm.start=data", "validation=0.02"],
        ["jem.network=wide_resnet", "jem.depth=10", "jem.width=1", "jem.steps=1", "jem.buffer=16",
         "jem.start=gaussian", "jem.langevin_steps=1", "validation=0.02"],
        ["method=density", "density.objective=exact", "density.steps=3", "density.target=pinwheel"],
        ["method=jepa", "jepa.task=blocks", "jepa.anti_collapse=ema", "jepa.steps=2",
         "validation=0.02"],
    ],
)  # fmt: skip
def test_other_methods_run(
    here: Path, tmp_path: Path, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words]) == 0, capfd.readouterr()
    if "jepa.task=blocks" in words:
        assert list(tmp_path.glob("runs/ebm_jepa/smoke/*/samples/tokens.png"))


@pytest.mark.parametrize("objective", ["dsm", "exact"])
def test_an_energy_learns_a_density_without_chains(objective: str) -> None:
    """Either way the error in nats falls; the chains are never moved."""
    settings = DensitySettings(
        objective=objective, steps=120, batch_size=128, lr=1e-2, ema_decay=0.9, width=32, layers=2,  # type: ignore[arg-type]
        sigma=0.3, grid=50, buffer=8, chains=8,
    )  # fmt: skip
    torch.manual_seed(0)
    learner, density = learners.plane(settings, 0, torch.device("cpu"))
    chains = learner.buffer.chains.clone()

    def error() -> float:
        measured = density_error(learner.ema.average, density, 50, 0, torch.device("cpu"))
        return measured["log_density_error"]

    before = error()
    for step in range(settings.steps):
        learner.update(step, 1.0)
    assert error() < 0.7 * before
    assert torch.equal(learner.buffer.chains, chains)


def test_resumes_to_the_same_bits(resume_check) -> None:
    """JEM: the replay buffer, the averaged weights and the optimiser."""
    resume_check("ebm_jepa", "+size=smoke", "jem.steps=8", "validation=0.02")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jem.chains=300"], "jem.chains=300 is more than the buffer has: try jem.buffer=300"),
        (["jem.noise=-1"], "jem.noise must be 0 or more, got -1"),
        (["jem.restart=1.5"], "jem.restart must be from 0 to 1, got 1.5"),
        (["jem.network=wide_resnet", "jem.depth=20"], "jem.depth=20 must be 6 n + 4"),
        (["jem.batch_size=5000"], "jem.batch_size=5000 must be from 1 to the 1437"),
        (["jem.outliers=pydoc"], "data=pydoc is a text"),
        (["jem.outliers=digits"], "jem.outliers=digits is the training set itself"),
        (["method=ebm", "ebm.objective=exact"], "ebm.objective"),
        (["method=density", "density.start=gaussian"], "density.start=gaussian needs classes"),
        (["method=density", "density.target=spiral"], "density.target"),
        (["method=density", "density.grid=1"], "density.grid must be 2 or more, got 1"),
        (["method=jepa", "jepa.task=blocks", "jepa.patch=3"],
         "patches of 3 do not fill; try jepa.patch=4"),
        (["method=jepa", "jepa.heads=5"], "multiples of 4 and of jepa.heads=5, got 24; try 20"),
        (["method=jepa", "jepa.task=blocks", "jepa.patch=4", "jepa.target_scale=0.9"],
         "leave no context on a grid"),
        (["method=jepa", "jepa.anti_collapse=none"], "jepa.anti_collapse"),
        (["validation=1"], "validation must be from 0 to below 1, got 1"),
        (["validation=1e-5"], "it must leave at least one on either side"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out


def test_energies_that_diverge_fail_the_run_in_words(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["jem.lr=10", "jem.clip=1e9", "jem.energy_penalty=0", "jem.steps=40"]
    assert train.main(["+size=smoke", *words]) == 1
    assert "the energies diverged at step" in capfd.readouterr().err


def test_help_loads_nothing_heavy(lab_run: Lab) -> None:
    process = lab_run.start("-X", "importtime", "-m", "ebm_jepa.train", "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "jem.langevin_steps" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra"} & imported
