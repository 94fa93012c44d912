"""Drawing with a network: what is given stays, what is not is not looked at, what does not fit is
refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from labkit import UsageError
from video_generation import cascade
from video_generation.model import VideoUNet
from video_generation.pipeline import Pipeline, Settings, enlarge, halved, shrink


def pipeline(stage: str = "base", sampler: str = "euler") -> Pipeline:
    torch.manual_seed(0)
    network = VideoUNet(1, 16, (1,), patch=2, low=stage == "spatial")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    settings = Settings(stage, 4, 8, 2, 0.4, sampler, 2, 1)
    return Pipeline(network.eval().requires_grad_(False), settings)


def clips(n: int, frames: int, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(256, (n, frames, 1, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ancestral"])
def test_prediction_keeps_the_first_frames_and_looks_at_no_other(sampler: str) -> None:
    x, base = clips(3, 6), pipeline(sampler=sampler)
    kept = x.clone()
    found = base.predict(x, seed=1)
    assert (found.shape, found.dtype) == ((3, 4, 1, 8, 8), torch.uint8)
    assert torch.equal(found[:, :2], x[:, :2])
    assert torch.equal(x, kept)
    future = x.clone()
    future[:, 2:] = 255 - future[:, 2:]
    assert torch.equal(base.predict(future, seed=1), found)
    assert torch.equal(base.predict(x[:, :2], seed=1), found)
    past = x.clone()
    past[:, 1] = 255 - past[:, 1]
    assert not torch.equal(base.predict(past, seed=1)[:, 2:], found[:, 2:])
    assert not torch.equal(base.predict(x, seed=2), found)


def test_generation_is_of_nothing_and_depends_on_the_seed() -> None:
    base = pipeline()
    found = base.generate(2, seed=1)
    assert found.shape == (2, 4, 1, 8, 8)
    assert torch.equal(found, base.generate(2, seed=1))
    assert not torch.equal(found, base.generate(2, seed=2))


def test_a_frame_is_drawn_between_every_two() -> None:
    x = clips(2, 4)
    found = pipeline("temporal").between(x)
    assert found.shape == (2, 7, 1, 8, 8)
    assert torch.equal(found[:, ::2], x)


def test_clips_are_drawn_larger_and_follow_what_they_are_given() -> None:
    x, spatial = clips(2, 7), pipeline("spatial")
    found = spatial.larger(x)
    assert found.shape == (2, 7, 1, 16, 16)
    assert not torch.equal(spatial.larger(255 - x), found)


@pytest.mark.parametrize(
    ("call", "shape", "message"),
    [
        ("predict", (2, 1, 1, 8, 8), "a video of 1 frames is shorter than the model's window"),
        ("predict", (2, 4, 3, 8, 8), r"needs \(clips, frames, 1, 8, 8\)"),
        ("predict", (2, 4, 1, 8, 10), r"needs \(clips, frames, 1, 8, 8\)"),
        ("predict", (4, 1, 8, 8), r"clips of shape \(4, 1, 8, 8\) do not fit"),
        ("between", (2, 3, 1, 8, 8), "this network needs 4"),
        ("larger", (2, 6, 1, 8, 8), "this network needs 7"),
    ],
)
def test_clips_that_do_not_fit_are_refused(call: str, shape: tuple[int, ...], message: str) -> None:
    stage = {"predict": "base", "between": "temporal", "larger": "spatial"}[call]
    with pytest.raises(UsageError, match=message):
        getattr(pipeline(stage), call)(torch.zeros(shape, dtype=torch.uint8))


def test_a_saved_pipeline_draws_the_same(tmp_path: Path) -> None:
    for stage in ("base", "spatial"):
        made = pipeline(stage)
        made.save(tmp_path / stage)
        loaded = Pipeline.load(tmp_path / stage)
        assert loaded.settings == made.settings
        x = clips(1, 7)
        call = "larger" if stage == "spatial" else "predict"
        assert torch.equal(getattr(loaded, call)(x), getattr(made, call)(x))


@pytest.mark.parametrize("fault", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_named(tmp_path: Path, fault: str) -> None:
    pipeline().save(tmp_path)
    (tmp_path / fault).write_text("{")
    with pytest.raises(UsageError, match="holds no video model that can be opened"):
        Pipeline.load(tmp_path)


def test_half_and_twice_the_side() -> None:
    x = torch.rand(2, 3, 1, 4, 6)
    small = shrink(x)
    assert small.shape == (2, 3, 1, 2, 3)
    torch.testing.assert_close(small[1, 2, 0, 1, 2], x[1, 2, 0, 2:, 4:].mean())
    torch.testing.assert_close(shrink(enlarge(x)), x)
    pixels = torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8).view(1, 1, 1, 2, 2)
    assert halved(pixels).item() == 1


def test_what_the_stages_are_given_in_training() -> None:
    torch.manual_seed(0)
    x = torch.rand(200, 5, 1, 4, 4)
    given, level, low = cascade.conditions(x, "base", 2, 0.25, 0.4)
    assert not level.any()
    assert low == {}
    rows = given.sum(dim=1)
    assert set(rows.tolist()) == {0, 2}
    assert (rows == 0).float().mean().item() == pytest.approx(0.25, abs=0.1)
    assert given[rows == 2][0].tolist() == [True, True, False, False, False]

    given, level, low = cascade.conditions(x, "temporal", 2, 0.25, 0.4)
    assert (given == torch.tensor([True, False, True, False, True])).all()
    assert (level.min() >= 0, level.max() <= 0.4, level.mean().item() > 0.15) == (True, True, True)
    assert low == {}

    given, level, low = cascade.conditions(x, "spatial", 2, 0.25, 0.0)
    assert not given.any()
    torch.testing.assert_close(low["low"], enlarge(shrink(x)))
    assert torch.equal(low["level"], level)


def test_the_cascade_draws_at_twice_the_rate_and_side() -> None:
    chain = cascade.Cascade(pipeline(), pipeline("temporal"), pipeline("spatial"))
    x = clips(2, 3)
    drawn = chain.predict(x)
    assert drawn.shape == (2, 7, 1, 16, 16)
    assert chain.generate(2).shape == (2, 7, 1, 16, 16)
    base = chain.base.predict(x)
    assert torch.equal(drawn, chain.spatial.larger(chain.temporal.between(base, 1), 2))
