"""The week as a person runs it, at size smoke: training, resuming, drawing, bad words."""

import pytest
from PIL import Image


@pytest.mark.parametrize("words", [(), ("+experiment=flow",)])
def test_smoke_trains_measures_and_draws(lab_run, words: tuple[str, ...]) -> None:
    done = lab_run("diffusion", "+size=smoke", *words)
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["fid_ratio"] == pytest.approx(metrics["fid"] / metrics["fid_real"])
    assert done.metrics[-1]["train/loss"] < 0.75 * done.metrics[0]["train/loss"]
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"samples.png", "guided.png", "denoising.png", "training.png"} <= names

    def draw(*words: str) -> tuple[int, str]:
        process = lab_run.start("-m", "diffusion.sample", *words)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    code, output = draw("run=latest", "n=12", "label=7", "steps=3", "seed=5")
    assert code == 0, output
    assert Image.open(done.dir / "samples" / "drawn-5.png").width > 8
    out = lab_run.home / "mine.png"
    code, output = draw(f"run={done.dir}", "n=3", "guidance=1.5", "steps=2", f"out={out}")
    assert code == 0, output
    assert out.is_file()
    wrong = "ddim" if words else "heun"
    code, output = draw(f"sampler={wrong}")
    assert code == 2
    assert f"sampler={wrong}" in output
    code, output = draw("label=10")
    assert code == 2
    assert "classes go from 0 to 9" in output


@pytest.mark.parametrize("words", [(), ("+experiment=flow",)])
def test_resumes_to_the_same_bits(resume_check, words: tuple[str, ...]) -> None:
    resume_check("diffusion", "+size=smoke", "steps=16", "samples=100", *words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sampler=heun", "sampler=heun does not fit objective=eps; try sampler=ancestral"),
        ("sampling_steps=2000", "sampling_steps must be from 1 to timesteps"),
        ("width=30", "width must be a multiple of 4"),
        ("multipliers=[1,2,2,2,2]", "cannot be halved 4 times; try multipliers=[1,2]"),
        ("label_dropout=1", "label_dropout and ema_decay"),
    ],
)
def test_settings_that_do_not_fit_are_refused(lab_run, word: str, message: str) -> None:
    done = lab_run("diffusion", "+size=smoke", word)
    assert done.returncode == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no finished run of diffusion"),
        (("run=nowhere",), "run=nowhere is no finished run"),
        (("m=3",), "unknown setting 'm'"),
        (("samler=ddim",), "did you mean sampler?"),
        (("64",), "settings are written key=value"),
        (("n=many",), "n=many: a whole number of at least 1 is needed"),
        (("n=0",), "n=0: a whole number of at least 1"),
        (("seed=-1",), "seed=-1"),
    ],
)
def test_sample_names_what_it_cannot_take(lab_run, words: tuple[str, ...], message: str) -> None:
    process = lab_run.start("-m", "diffusion.sample", *words)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert message in output
    assert "Traceback" not in output


@pytest.mark.parametrize("module", ["diffusion.train", "diffusion.sample", "pytorch_mastery.train"])
def test_help_loads_nothing_heavy(lab_run, module: str) -> None:
    """Asking for help takes a fifth of a second because nothing heavy is imported."""
    process = lab_run.start("-X", "importtime", "-m", module, "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra"} & imported
