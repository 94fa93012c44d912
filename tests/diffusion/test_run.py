"""The week as a person runs it, at size smoke: training, resuming, drawing, bad words."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusion import DDPM, Pipeline, RectifiedFlow, UNet, sample
from diffusion.data import hold_out
from diffusion.train import train
from labkit.data import ImageData, load
from tests.conftest import Lab


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place for all runs of this file: the classifier that judges them is trained once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def lab_run(home: Path, shared: Path) -> Lab:
    return Lab(home, shared)


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands carried out in this process read and write the same place."""
    monkeypatch.setenv("LAB_HOME", str(home))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])


@pytest.mark.parametrize("words", [(), ("+experiment=flow",)])
def test_smoke_trains_measures_and_draws(
    lab_run: Lab, here: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    done = lab_run("diffusion", "+size=smoke", *words)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["fid_ratio"] == pytest.approx(metrics["fid"] / metrics["fid_real"])
    assert done.metrics[-1]["train/loss"] < 0.75 * done.metrics[0]["train/loss"]
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"samples.png", "guided.png", "denoising.png", "training.png"} <= names

    latest = ["run=latest", "n=12", "label=7", "steps=3", "seed=5"]
    process = lab_run.start("-m", "diffusion.sample", *latest)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert Image.open(done.dir / "samples" / "drawn-5.png").width > 8
    out = lab_run.home / "mine.png"
    assert sample.main([f"run={done.dir}", "n=3", "guidance=1.5", "steps=2", f"out={out}"]) == 0
    assert out.is_file()
    wrong = "ddim" if words else "heun"
    assert sample.main([f"sampler={wrong}"]) == 2
    assert f"sampler={wrong}" in capsys.readouterr().err
    assert sample.main(["label=10"]) == 2
    assert "classes go from 0 to 9" in capsys.readouterr().err


def test_latents_are_drawn_by_diffusers_network_as_well(lab_run: Lab, here: Path) -> None:
    words = ("network=diffusers", "steps=12", "log_every=1", "samples=40", "sampling_steps=2")
    done = lab_run("diffusion", "+size=smoke", "+experiment=latent", *words)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    assert {"latent_ratio", "autoencoder_ratio", "valid_fid_ratio"} <= done.record["metrics"].keys()
    assert done.metrics[-1]["train/loss"] < done.metrics[0]["train/loss"]
    settings = json.loads((done.dir / "model" / "config.json").read_text())["settings"]
    data, _ = hold_out(load("digits", kind=ImageData), 0.1)
    pipeline = Pipeline.load(done.dir / "model")
    z = pipeline.encode(data.train.tensors()[0])
    assert z.double().std(correction=0).item() == pytest.approx(1, rel=1e-2)  # encoded in bf16
    assert z.abs().max().item() == pytest.approx(settings["limit"], rel=1e-2)
    assert settings["scale"] != 1
    assert tuple(settings["latent"]) == z.shape[1:] == (4, 2, 2)
    out = lab_run.home / "latent.png"
    assert sample.main([f"run={done.dir}", "n=4", "steps=1", f"out={out}"]) == 0
    assert out.is_file()


def test_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("diffusion", "+size=smoke", "steps=16", "samples=100")


@pytest.mark.parametrize("kind", [DDPM, RectifiedFlow])
def test_a_process_keeps_no_state_between_steps(kind: type[DDPM] | type[RectifiedFlow]) -> None:
    """So that the loop resumes with any of them as with the one that is resumed above."""
    torch.manual_seed(0)
    network, x, y = UNet(width=8, blocks=1), torch.rand(4, 1, 8, 8), torch.arange(4)
    used, before = kind(), torch.get_rng_state()
    losses = []
    for process in (used, used, kind()):
        torch.set_rng_state(before)
        losses.append(process.loss(network, x, y).item())
    assert all(a == b for a, b in itertools.pairwise(losses))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sampler=heun", "sampler=heun does not fit objective=eps; try sampler=ancestral"),
        (
            "sampling_steps=2000",
            "is more than the timesteps=1000 of training; try sampling_steps=1000",
        ),
        ("sampling_steps=0", "sampling_steps must be > 0, got 0"),
        ("ema_decay=1", "ema_decay must be from 0 to below 1, got 1"),
        ("multipliers=[]", "multipliers a list like [1,2]"),
        ("multipliers=[1,0]", "multipliers must be > 0, got 0"),
        ("width=30", "width must be a multiple of 4"),
        ("multipliers=[1,2,2,2,2]", "cannot be halved 4 times; try multipliers=[1,2]"),
        (
            "autoencoder=lab multipliers=[1,2,2]",
            "digits latents are 2 x 2, which cannot be halved 2 times; try multipliers=[4]",
        ),
        ("label_dropout=1", "label_dropout must be from 0 to below 1, got 1"),
        ("validation=0", "validation must be above 0 and below 1, got 0"),
        ("validation=0.0001", "must leave at least one on either side; try validation=0.1"),
        ("autoencoder=no/such/folder", "no/such/folder holds no AutoencoderKL"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, word: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *word.split()]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no finished run of diffusion"),
        (["run=nowhere"], "run=nowhere is not a finished run"),
        (["m=3"], "unknown setting 'm'"),
        (["samler=ddim"], "did you mean sampler?"),
        (["64"], "settings are written key=value"),
        (["n=many"], "n=many: a whole number of at least 1 is needed"),
        (["n=0"], "n=0: a whole number of at least 1"),
        (["seed=-1"], "seed=-1"),
    ],
)
def test_sample_names_what_it_cannot_take(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert sample.main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("module", ["diffusion.train", "diffusion.sample", "pytorch_mastery.train"])
def test_help_loads_nothing_heavy(lab_run: Lab, module: str) -> None:
    """Asking for help takes a fifth of a second because nothing heavy is imported."""
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra"} & imported
