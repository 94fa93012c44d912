"""The week as a person runs it, at size smoke, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cross_frontiers.train import train
from tests.conftest import Lab

SHORT = (
    "steps=6",
    "grid.resolutions=[6,8]",
    "samples=8",
    "batch_size=64",
    "frames=0",
    "log_every=1",
    "prune_at=[0.4,0.7]",
    "random_background=true",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands carried out in this process read and write a place of their own."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_smoke_learns_the_scene(lab_run: Lab) -> None:
    done = lab_run.once("cross_frontiers", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["psnr"] > metrics["blank_psnr"] + 5
    assert metrics["ssim"] > 0.4
    assert done.record["data"]["name"] == "balls"
    assert done.metrics[-1]["train/occupied"] < 1
    names = {p.name for p in (done.dir / "samples").iterdir()}
    assert {"views.png", "turntable.gif", "training.png"} <= names
    with Image.open(done.dir / "samples" / "turntable.gif") as film:
        assert film.n_frames == 2
        assert film.size == (50, 25)


@pytest.mark.parametrize(
    "words",
    [
        ("field=hash", "hash.log2_rows=8", "random_background=true"),
        ("+experiment=mlp", "fine=4", "mlp.width=16"),
        (
            "+experiment=splats",
            "splats.count=50",
            "splats.relocate_every=1",
            "random_background=true",
        ),
    ],
)
def test_the_other_fields_train(here: Path, words: tuple[str, ...]) -> None:
    small = ("steps=3", "samples=8", "batch_size=32", "frames=0")
    assert train.main(["+size=smoke", *words, *small]) == 0
    (file,) = here.glob("runs/*/*/*/result.json")
    assert json.loads(file.read_text())["metrics"]["psnr"] > 3


def test_resumes_to_the_same_bits(resume_check) -> None:  # type: ignore[no-untyped-def]
    resume_check("cross_frontiers", "+size=smoke", *SHORT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("side=40", "must be a multiple of it; try side=50"),
        ("prune_at=[]", "1 or more are needed, such as prune_at="),
        ("field=hash prune_at=[0.5,0.2]", "must rise"),
        ("fine=8", "fine=8 is for field=mlp"),
        (
            "data=mnist",
            "data=mnist is a set of images, and this week wants a set of views of a scene",
        ),
        ("data=lego", "set LAB_DATA to a folder that has one"),
        ("samples=0", "samples must be > 0"),
        ("grid.degree=3", "grid.degree"),
        ("background=1.5", "background must be from 0 to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


def write_scene(folder: Path, **wrong: object) -> None:
    """A small scene in NeRF's layout, with something wrong with it."""
    pose = np.eye(4)
    pose[2, 3] = 4
    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
        frames = []
        for i in range(2):
            side = 12 if i and wrong.get("sizes") else 8
            Image.new(str(wrong.get("mode", "RGBA")), (side, side)).save(
                folder / split / f"r_{i}.png"
            )
            matrix = (pose * wrong.get("scale", 1)).tolist()
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": matrix})
        content = {"camera_angle_x": wrong.get("angle", 0.7), "frames": frames}
        if wrong.get("empty"):
            content["frames"] = []
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"empty": True}, "has no views"),
        ({"sizes": True}, "views must be of one size"),
        ({"scale": 2.0}, "is not a rotation and a shift"),
        ({"angle": float("nan")}, "camera_angle_x=nan is not between 0 and pi"),
        ({"angle": 4.0}, "is not between 0 and pi"),
        ({"angle": "wide"}, "is not an object with camera_angle_x and frames"),
    ],
)
def test_a_damaged_scene_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, object], said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_scene(here / "data" / "nerf_lego", **wrong)
    monkeypatch.setenv("LAB_DATA", str(here / "data"))
    assert train.main(["+size=smoke", "data=lego"]) == 2
    assert said in " ".join(capfd.readouterr().err.split())


def test_pictures_without_opacity_are_opaque(here: Path) -> None:
    from labkit.data.sets.views import read_lego

    assert read_lego(here) is None
    write_scene(here / "nerf_lego", mode="RGB")
    scene = read_lego(here)
    assert scene is not None
    scene.check()
    assert (scene.train.x[:, 3] == 255).all()
    assert scene.focal == pytest.approx(4 / np.tan(0.35))
