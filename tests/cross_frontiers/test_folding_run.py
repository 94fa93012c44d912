"""The programme as a person runs it: it learns, resumes, and refuses what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cross_frontiers.folding import figures, geometry, start, tasks
from cross_frontiers.folding.pdb import read_a3m, read_chain
from cross_frontiers.folding.report import rotation_gap
from cross_frontiers.folding.settings import EvoformerSettings
from cross_frontiers.folding.train import train
from labkit import UsageError
from labkit.data import ProteinData, registry
from labkit.data.sets.proteins import helices
from tests.conftest import Lab

SMALL = EvoformerSettings(blocks=1, width=8, pair_width=8, heads=2, hidden=2, reach=4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of this process go there."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    registry._load.cache_clear()  # what another test read from LAB_DATA
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_smoke_learns_contacts(lab_run: Lab) -> None:
    done = lab_run.once("cross_frontiers.folding", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["precision"] > metrics["guess_precision"]
    gain = metrics["precision"] - metrics["dca_precision"]
    assert metrics["dca_gain"] == pytest.approx(gain)
    assert gain > 0
    assert metrics["shared_folds"] == 0
    assert done.record["data"]["name"] == "families"
    assert sum(done.record["data"]["splits"].values()) == 120
    losses = [row["train/loss"] for row in done.metrics if "train/loss" in row]
    assert losses[-1] < losses[0]
    assert {p.name for p in (done.dir / "samples").iterdir()} == {"contacts.png", "training.png"}


def test_smoke_learns_structures(lab_run: Lab) -> None:
    done = lab_run.once("cross_frontiers.folding", "+size=smoke", "method=structure")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["rotation_gap"] < 1e-5
    assert metrics["first_loss"] < 1.05
    assert done.record["data"]["name"] == "helices"
    notes = done.record["notes"]["proteins"]
    assert set(notes) == {"H001:A", "H002:A", "H003:A"}
    assert metrics["rmsd"] == pytest.approx(max(row["rmsd"] for row in notes.values()))
    losses = [row["train/loss"] for row in done.metrics if "train/loss" in row]
    assert min(losses) < 0.8 * losses[0]
    assert {p.name for p in (done.dir / "samples").iterdir()} == {"traces.png", "training.png"}


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check(
        "cross_frontiers.folding", "+size=smoke", "steps=6", "evaluations=1", "log_every=2",
        "families.rows=6",
    )  # fmt: skip


def test_one_protein_is_learned_by_heart() -> None:
    """Backbone of 12 residues, far below 1 Å; and the scores do not see how it is turned."""
    torch.manual_seed(0)
    chain = read_chain(helices().structures["H001"], "H001")
    short = type(chain)(chain.name, chain.tokens[:12], chain.atoms[:12], chain.index[:12])
    net = EvoformerSettings(blocks=1, width=16, pair_width=16, heads=2, hidden=2, reach=12)
    task = tasks.Structures(net, [short], 2, 0.1, torch.device("cpu"))
    optimizers = start.optimizers_of(task.model, 5e-3, 3e-2, 0.0, "fp32")
    for step in range(80):
        start.set_rates(optimizers, min(1.0, (step + 1) / 5) * (1 - step / 80))
        task.model.zero_grad()
        task.loss(step).backward()
        for optimizer in optimizers:
            optimizer.step()
    (its,) = task.targets
    points = task.points(its)
    assert geometry.rmsd(points, short.atoms[:, 1]) < 1
    assert task.look()["train/rmsd"] == pytest.approx(geometry.rmsd(points, short.atoms[:, 1]))
    assert rotation_gap(task.predict(its), its) < 1e-9


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    from cross_frontiers.folding import generated
    from cross_frontiers.folding.settings import FamilySettings

    made = generated.make(FamilySettings(folds=40, length=12, rows=4), 0)
    torch.manual_seed(0)
    task = tasks.Contacts(SMALL, made, 3, 0, torch.device("cpu"))
    torch.manual_seed(0)
    other = tasks.Contacts(SMALL, made, 3, 1, torch.device("cpu"))
    assert task.loss(2).item() == task.loss(2).item()
    assert task.loss(2).item() != task.loss(3).item()
    assert task.loss(2).item() != other.loss(2).item()
    assert task.scores(made["test"].msa).shape == made["test"].contacts.shape


def test_figures_of_odd_inputs() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 9))
    assert len(figures.contact_maps({"a": scores, "b": scores}, None).axes) == 2
    assert len(figures.contact_maps({"a": scores}, np.zeros((9, 9), bool)).axes) == 1
    line = np.arange(15.0).reshape(5, 3)
    assert len(figures.traces([("one", line, line + 1)]).axes) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("families.rows=1", "an alignment needs at least two rows; try families.rows=48"),
        ("families.length=6", "families.length=6 is too short"),
        ("families.folds=1", "leaves no fold for the"),
        ("families.gaps=1", "families.gaps must be from 0 to below 1"),
        ("net.width=15", "net.width=15 is no multiple of net.heads=2"),
        ("batch_size=5000", "batch_size=5000 must be from 1 to the"),
        ("method=structure chains=[H009]", "helices has no entry H009"),
        ("method=structure chains=[H001:B]", "H001 has no chain B; it has A. Type H001:A"),
        ("method=structure proteins=proteins", "or type proteins=<one of helices>"),
        ("method=structure proteins=helixes", "did you mean helices?"),
        (
            "method=structure proteins=mnist",
            "proteins=mnist is a set of images, and this week wants a set of proteins",
        ),
        ("method=docking", "method"),
        ("data=mnist", "data"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


def test_what_a_file_lacks_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    text = helices().structures["H001"]
    cut = "\n".join(line for i, line in enumerate(text.splitlines()) if i != 7)
    data = ProteinData("mine", "test", {"H001": cut}, {})
    (found,) = start.chains_of(data, [])
    assert len(found.tokens) == 24
    shown = capfd.readouterr()
    assert "residue 3 lacks CA; left out" in " ".join((shown.err + shown.out).split())
    with pytest.raises(UsageError, match="mine has 1 row"):
        read_a3m(">a\nARN\n", "mine")
