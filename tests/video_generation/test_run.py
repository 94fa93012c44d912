"""The week as a person runs it, at size smoke: training, resuming, what is refused."""

import pytest
from PIL import Image

from tests.conftest import Lab
from video_generation.pipeline import Pipeline
from video_generation.train import train


def test_smoke_learns_where_the_ball_goes(lab_run: Lab) -> None:
    done = lab_run.once("video_generation", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["tracking_error"] < metrics["copy_error"]
    assert metrics["tracker_error"] < 0.2
    simple = min(metrics["bounce_copy_error"], metrics["bounce_velocity_error"])
    assert metrics["bounce_ratio"] == pytest.approx(metrics["bounce_error"] / simple)
    assert done.metrics[-1]["train/loss"] < 0.5 * done.metrics[0]["train/loss"]
    assert done.record["data"]["source"] == "generated"
    with Image.open(done.dir / "samples" / "beside.gif") as moving:
        assert moving.n_frames == 4
    names = {path.name for path in (done.dir / "samples").iterdir()}
    assert {"beside.png", "generated.gif", "generated.png", "training.png"} <= names
    published = Pipeline.load(done.home / "artifacts" / "video_generation" / "smoke-balls")
    assert published.settings.given == 2


@pytest.mark.parametrize("stage", ["temporal", "spatial"])
def test_later_stages_of_the_cascade_run(lab_run: Lab, stage: str) -> None:
    few = ["steps=2", "clips=32", "samples=20", "sampling_steps=2", "judge_steps=2", "data=digits"]
    few += ["pictures=1"] if stage == "temporal" else []
    done = lab_run("video_generation", "+size=smoke", f"+experiment={stage}", *few)
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    with Image.open(done.dir / "samples" / "beside.gif") as moving:
        assert moving.n_frames == 7
    if stage == "spatial":
        assert metrics["cascade_tracking_error"] > 0
        assert metrics["psnr_enlarged"] > 10
        assert (done.dir / "samples" / "cascade.gif").is_file()
    else:
        assert metrics["bounce_velocity_error"] < metrics["copy_error"]
    assert done.record["data"]["name"] == "digits"


def test_resumes_to_the_same_bits(resume_check) -> None:
    few = ["steps=8", "clips=64", "samples=20", "sampling_steps=2", "judge_steps=4"]
    resume_check("video_generation", "+size=smoke", *few)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["given=4"], "a video of frames=4 is shorter than the model's window: given=4"),
        (["given=1"], "given must be 2 or more, got 1"),
        (["frames=1"], "frames must be 2 or more, got 1"),
        (["side=15"], "side=15 cannot be cut into patches of 2"),
        (["side=4"], "side=4 leaves no room to move; try side=16"),
        (["width=24"], "width must be a multiple of 16"),
        (["multipliers=[]"], "multipliers a list like [1,2]"),
        (["stage=spatial", "pictures=1"], "stage=spatial takes no single pictures; try pictures=0"),
        (["batch_size=2000"], "batch_size=2000 must be from 1 to the 1000 training examples"),
        (["data=digits", "validation=0.0001"], "of the 1437 training examples is 0"),
        (["augmentation=1"], "augmentation must be from 0 to below 1"),
        (["samples=1"], "samples must be 20 or more"),
        (["samples=2000"], "samples=2000 clips cannot be compared with clips=1000 real ones"),
        (["data=wikitext2"], "wikitext2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    words: list[str],
    message: str,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])
    assert train.main(["+size=smoke", *words]) == 2
    output = capfd.readouterr()
    assert message in " ".join(output.err.split())
    assert "Traceback" not in output.err + output.out


def test_help_loads_nothing_heavy(lab_run: Lab) -> None:
    process = lab_run.start("-X", "importtime", "-m", "video_generation.train", "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "usage:" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert "labkit.config" in imported
    assert not {"torch", "matplotlib", "hydra"} & imported
