"""The week as a person runs it, at size smoke: training, resuming, what is refused."""

from pathlib import Path

import pytest

from generative_models import Autoencoder, Generator
from generative_models.train import train
from tests.conftest import Lab

METRICS = {
    "vae": {"neg_elbo", "importance_bound", "active_units", "pixel_error"},
    "gan": {"least_class"},
    "vqvae": {"codes_used", "perplexity", "pixel_error"},
    "autoencoder": {"neg_elbo", "pixel_error"},
}
PICTURES = {
    "vae": {"reconstructions.png", "traversals.png"},
    "gan": set(),
    "vqvae": {"reconstructions.png"},
    "autoencoder": {"reconstructions.png"},
}


@pytest.mark.parametrize("method", METRICS)
def test_smoke_trains_measures_and_draws(lab_run: Lab, method: str) -> None:
    words = {"vae": [], "gan": ["method=gan"]}.get(method, [f"+experiment={method}", "steps=30"])
    done = lab_run.once("generative_models", "+size=smoke", *words)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert METRICS[method] | {"fid", "fid_ratio"} <= set(metrics)
    assert metrics["fid_ratio"] == pytest.approx(metrics["fid"] / metrics["fid_real"])
    common = {"samples.png", "interpolations.png", "learning.gif", "training.png"}
    assert common | PICTURES[method] <= {p.name for p in (done.dir / "samples").iterdir()}
    assert Generator.load(done.dir / "model").draw(2).shape == (2, 1, 8, 8)
    if method == "vae":
        published = done.home / "artifacts" / "generative_models" / "smoke-digits"
        assert Autoencoder.load(published).latent == (8, 1, 1)
        assert metrics["neg_elbo"] == pytest.approx(metrics["kl"] + metrics["reconstruction"])
        assert metrics["gap"] > 0.05
        assert metrics["neg_elbo"] < 30
    if method == "gan":
        assert metrics["class_perplexity"] > 5


def test_resumes_to_the_same_bits(resume_check) -> None:
    """The GAN: two networks, two optimisers and an average; and the frames of the film."""
    resume_check("generative_models", "+size=smoke", "+experiment=gan", "steps=12", "samples=50")


@pytest.mark.parametrize("method", ["vae", "gan"])
def test_colour_pictures_and_a_validation_split(
    here: Path, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["data=shapes", "levels=3", "width=4", "steps=2", "batch_size=8", "samples=50"]
    more = ["validation=0.05", f"method={method}", "vae.likelihood=gaussian", "vae.spatial=true"]
    more += ["gan.augment=[color,cutout]", "gan.r1=0.1", "gan.loss=non_saturating"]
    assert train.main(["+size=smoke", *words, *more]) == 0, capfd.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["levels=4"], "digits pictures are 8 x 8, which cannot be halved 4 times; try levels=3"),
        (["levels=0"], "levels must be > 0, got 0"),
        (["batch_size=1"], "batch_size must be 2 or more, got 1"),
        (["batch_size=5000"], "batch_size=5000 must be from 1 to the"),
        (["validation=1"], "validation must be from 0 to below 1, got 1"),
        (["validation=1e-5"], "it must leave at least one on either side"),
        (["vae.beta=-1"], "vae.beta must be 0 or more, got -1"),
        (["method=gan", "gan.augment=[flip]"], "gan.augment takes color, translation and cutout"),
        (["method=gan", "gan.loss=wgan"], "gan.loss"),
        (["method=gan", "gan.discriminator_steps=20"], "try batch_size=40"),
        (["method=gan", "gan.ema_decay=1"], "gan.ema_decay must be from 0 to below 1, got 1"),
        (["vqvae.codes=0"], "vqvae.codes must be > 0, got 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words]) == 2
    output = capfd.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err + output.out


def test_help_loads_nothing_heavy(lab_run: Lab) -> None:
    process = lab_run.start("-X", "importtime", "-m", "generative_models.train", "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "vae.free_bits" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra"} & imported
