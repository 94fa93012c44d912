"""Latents: their scale is measured, and the way into them and back loses nothing."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion import Pipeline, Settings, UNet, evaluate, latent
from diffusion.model import Conv
from tests.diffusion.toy import Toy


def pictures(n: int = 7, channels: int = 1, height: int = 8, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.exercise("latent.scale_factor")
def test_scale_factor_is_one_over_the_deviation_of_numpy() -> None:
    z = 0.3 * torch.randn(5, 3, 2, 4) + torch.tensor([2.0, -1.0, 0.5]).view(3, 1, 1)
    kept = z.clone()
    assert latent.scale_factor(z) == pytest.approx(1 / z.double().numpy().std(), rel=1e-12)
    assert torch.equal(z, kept)
    assert isinstance(latent.scale_factor(z), float)


@pytest.mark.exercise("latent.scale_factor")
def test_scale_factor_of_two_numbers_by_hand() -> None:
    """1 and 4 have mean 2.5 and deviation 1.5, whatever the shape they are given in."""
    assert latent.scale_factor(torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)) == pytest.approx(2 / 3)
    assert latent.scale_factor(torch.tensor([1.0, 4.0]).view(2, 1, 1, 1)) == pytest.approx(2 / 3)


@pytest.mark.exercise("latent.scale_factor")
def test_scale_factor_keeps_its_digits() -> None:
    """Far from 0 the deviation is lost in float32, and in bf16 the mean of many numbers is."""
    z = torch.tensor([4096.0, 4096.0078125]).repeat(5000).view(-1, 1, 1, 1)
    assert latent.scale_factor(z) == pytest.approx(256, rel=1e-6)
    small = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16).repeat(500).view(-1, 1, 1, 1)
    assert latent.scale_factor(small) == pytest.approx(256, rel=1e-6)


@pytest.mark.exercise("latent.scale_factor")
@pytest.mark.parametrize("value", [1.0, math.nan, math.inf])
def test_latents_without_a_scale_are_refused(value: float) -> None:
    z = torch.ones(2, 1, 2, 2)
    z[1] = value
    with pytest.raises(ValueError):
        latent.scale_factor(z)


@pytest.mark.exercise("latent.encode")
@pytest.mark.parametrize(("channels", "batch"), [(1, 3), (3, 7), (2, 500)])
def test_encode_scales_what_the_autoencoder_gives(channels: int, batch: int) -> None:
    x, toy = pictures(channels=channels), Toy((channels, 8, 6))
    kept = x.clone()
    z = latent.encode(toy, x, 2.5, batch)
    assert z.shape == (7, 4 * channels, 4, 3)
    assert z.dtype == torch.float32
    assert not z.requires_grad
    for n, c, i, j in np.ndindex(7, channels, 8, 6):
        expected = 2.5 * (0.2 * int(x[n, c, i, j]) / 255 + 3)
        assert float(z[n, 4 * c + 2 * (i % 2) + j % 2, i // 2, j // 2]) == pytest.approx(expected)
    assert toy.encoded == {3: [3, 3, 1], 7: [7], 500: [7]}[batch]
    assert torch.equal(x, kept)


@pytest.mark.exercise("latent.encode")
def test_encode_takes_500_at_a_time_and_one_picture() -> None:
    toy = Toy()
    latent.encode(toy, pictures(501, 1, 2, 2), 1.0)
    latent.encode(toy, pictures(1), 1.0)
    assert toy.encoded == [500, 1, 1]


@pytest.mark.exercise("latent.decode")
@pytest.mark.parametrize("batch", [3, 500])
@pytest.mark.parametrize("scale", [0.1, 1.0, 40.0])
def test_decode_undoes_the_scale(scale: float, batch: int) -> None:
    x, toy = pictures(channels=2), Toy((2, 8, 6))
    z = scale * toy.encode(x).float()
    kept = z.clone()
    again = latent.decode(toy, z, scale, batch)
    assert again.dtype == torch.uint8
    assert torch.equal(again, x)
    assert [len(part) for part in toy.decoded] == {3: [3, 3, 1], 500: [7]}[batch]
    assert not any(part.requires_grad for part in toy.decoded)
    assert torch.equal(z, kept)


@pytest.mark.exercise("latent.decode")
def test_decode_gives_the_autoencoder_float32_without_gradients() -> None:
    toy = Toy()
    latent.decode(toy, torch.zeros(501, 4, 1, 1, dtype=torch.bfloat16, requires_grad=True), 3.0)
    assert [len(part) for part in toy.decoded] == [500, 1]
    assert all(part.dtype == torch.float32 and not part.requires_grad for part in toy.decoded)
    one = latent.decode(toy, torch.full((1, 4, 1, 1), 7.0, dtype=torch.bfloat16), 3.0)
    assert one.shape == (1, 1, 2, 2)
    torch.testing.assert_close(toy.decoded[-1], torch.full((1, 4, 1, 1), 7 / 3))


def pipeline(objective: str = "eps", scale: float = 5.0) -> Pipeline:
    """Diffusion in the latents of the toy, with a network whose answer is not 0."""
    torch.manual_seed(0)
    network = UNet(channels=4, width=8, multipliers=(1,), blocks=1)
    for module in network.modules():
        if isinstance(module, Conv) and not module.weight.any():
            torch.nn.init.normal_(module.weight, std=0.2)
    settings = Settings(
        objective, "cosine", 50, 0.0, 1.0, "ancestral", 4, 2.0, (1, 8, 8),
        latent=(4, 4, 4), scale=scale,
    )  # fmt: skip
    return Pipeline(network.eval(), settings, autoencoder=Toy())


@pytest.mark.parametrize("objective", ["eps", "flow"])
def test_a_pipeline_draws_latents_and_decodes_them(objective: str) -> None:
    draw, seen = pipeline(objective), []
    drawn = draw(torch.arange(3), trace=lambda x, x0: seen.append(x.shape))
    assert drawn.shape == (3, 1, 8, 8)
    assert drawn.dtype == torch.uint8
    assert seen == [(3, 4, 4, 4)] * 4
    other = pipeline(objective, scale=4.0)
    other(torch.arange(3))
    ours, theirs = (p.autoencoder.decoded[-1] for p in (draw, other))  # type: ignore[union-attr]
    torch.testing.assert_close(5 * ours, 4 * theirs)  # the scale is undone before decoding


def test_pictures_come_back_through_the_pipeline() -> None:
    x = pictures(5, 1, 8, 8)
    draw = pipeline()
    assert torch.equal(draw.decode(draw.encode(x)), x)
    settings = Settings("eps", "cosine", 9, 0.0, 1.0, "ddim", 1, 1.0, (1, 8, 8))
    pixels = Pipeline(draw.network, settings)
    assert torch.equal(pixels.decode(pixels.encode(x)), x)


@pytest.mark.parametrize("objective", ["x0", "flow"])
@pytest.mark.parametrize(("limit", "end"), [(1.0, 1.0), (2.5, 2.5), (4.0, 3.0)])
def test_predictions_are_clipped_to_the_range_of_the_data(
    objective: str, limit: float, end: float
) -> None:
    """A network that always says 3 ends there, or at the limit."""
    shape = (4, 4, 4)
    made = Settings(
        objective, "cosine", 10, 0.0, 1.0, "ancestral", 5, 1.0, (1, 8, 8), latent=shape, limit=limit
    )

    def three(x: Tensor, t: float) -> Tensor:
        return torch.full_like(x, 3.0) if objective == "x0" else (x - 3) / t

    found = made.process().sample(three, torch.randn(2, *made.shape), 5, "ancestral")
    torch.testing.assert_close(found, torch.full((2, *shape), end))


def test_an_autoencoder_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Smaller(Toy):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents)[..., 1:]

    monkeypatch.setattr(latent.DiffusersAutoencoder, "load", lambda *_: Smaller())
    data: Any = SimpleNamespace(name="set", train=SimpleNamespace(x=pictures(2).numpy()))
    run: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(latent.UsageError, match=r"makes pictures \(1, 8, 5\) of set's \(1, 8, 6\)"):
        latent.obtain("folder", run, data)


def test_latent_ratio_of_one_number_by_its_closed_form() -> None:
    """In one dimension the distance is (m1 - m2)^2 + (s1 - s2)^2, in deviations of the first."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(3, 50, 1, 1, 1, generator=generator)
    sets = [7 + 3 * normal[0], 5 + 2 * normal[1], 4 + 4 * normal[2]]
    made, train, test = (x.flatten().double().numpy() for x in sets)

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2)

    found = evaluate.latent_ratio(*sets)
    assert found == pytest.approx(apart(made, test) / apart(train, test))


def test_latent_ratio_counts_each_number_of_a_latent_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    made, train, test = (torch.randn(90, 2, 1, 3, generator=generator) for _ in range(3))
    assert evaluate.latent_ratio(train, train, test) == pytest.approx(1)
    units = torch.tensor([1.0, 50.0]).view(2, 1, 1)
    found = evaluate.latent_ratio(units * made, units * train, units * test)
    assert found == pytest.approx(evaluate.latent_ratio(made, train, test))
    assert evaluate.latent_ratio(made + 3, train, test) > 5 * found
