"""The face for later weeks: drawing, encoding, and the same after a trip to disk."""

import json
from pathlib import Path

import pytest
import torch

from generative_models import VAE, VQVAE, Autoencoder, Decoder, Generator
from labkit import UsageError

IMAGE = (3, 8, 12)


def network(method: str) -> VAE | VQVAE | Decoder:
    torch.manual_seed(0)
    if method == "gan":
        return Decoder(IMAGE, 4, 2, 3, spatial=False)
    if method == "vqvae":
        return VQVAE(IMAGE, 4, 2, codes=6, dimension=3)
    return VAE(IMAGE, 4, 2, 3, spatial=method == "spatial", likelihood="gaussian")


METHODS = ["vae", "spatial", "gan", "vqvae"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_draws_the_same_pictures(method: str) -> None:
    generator = Generator(network(method))
    first = generator.draw(5, seed=3)
    assert first.shape == (5, *IMAGE)
    assert generator.image == IMAGE
    assert first.dtype == torch.uint8
    assert torch.equal(first, generator.draw(5, seed=3))
    assert not torch.equal(first, generator.draw(5, seed=4))
    cut = generator.draw(5, seed=3, batch_size=2)
    assert (cut.int() - first.int()).abs().max() <= 1, "however they are cut"


def test_drawing_does_not_change_the_network_or_its_mode() -> None:
    generator = Generator(network("gan").train())
    before = {k: v.clone() for k, v in generator.network.state_dict().items()}
    state = torch.get_rng_state()
    generator.draw(2)
    assert generator.network.training
    assert all(torch.equal(v, before[k]) for k, v in generator.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("words", [{"n": 0}, {"n": 2, "batch_size": 0}])
def test_nothing_to_draw_is_refused(words: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Generator(network("vae")).draw(**words)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_saved_draws_the_same(tmp_path: Path, method: str) -> None:
    generator = Generator(network(method).eval())
    generator.save(tmp_path / "model")
    loaded = Generator.load(tmp_path / "model")
    assert loaded.method == generator.method
    assert torch.equal(loaded.draw(4, seed=1), generator.draw(4, seed=1))
    assert not any(p.requires_grad for p in loaded.network.parameters())


@pytest.mark.parametrize(
    ("method", "latent"), [("vae", (3, 1, 1)), ("spatial", (3, 2, 3)), ("vqvae", (3, 2, 3))]
)
def test_pictures_to_latents_and_back(
    tmp_path: Path, method: str, latent: tuple[int, int, int]
) -> None:
    Autoencoder(network(method)).save(tmp_path)
    autoencoder = Autoencoder.load(tmp_path)
    pictures = torch.randint(256, (3, *IMAGE), dtype=torch.uint8)
    z = autoencoder.encode(pictures)
    assert autoencoder.latent == latent
    assert (z.shape, z.dtype) == ((3, *latent), torch.float32)
    back = autoencoder.decode(z)
    assert (back.shape, back.dtype) == (pictures.shape, torch.uint8)
    one = autoencoder.encode(pictures[1:2])
    torch.testing.assert_close(one, z[1:2], atol=1e-5, rtol=1e-4)
    if method != "vqvae":
        mean, _ = autoencoder.network.encode(pictures.float() / 255)
        torch.testing.assert_close(z, mean)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((2, 1, 8, 12), torch.uint8), ((2, *IMAGE), torch.float32)]
)
def test_other_pictures_and_latents_are_refused(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    autoencoder = Autoencoder(network("vae"))
    with pytest.raises(ValueError, match=r"pictures must be uint8 \(N, 3, 8, 12\)"):
        autoencoder.encode(torch.zeros(shape, dtype=dtype))
    with pytest.raises(ValueError, match=r"latents must be \(N, 3, 1, 1\)"):
        autoencoder.decode(torch.zeros(2, 3, 2, 2))


def test_folders_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no generative model"):
        Generator.load(tmp_path)
    Generator(network("gan")).save(tmp_path)
    with pytest.raises(UsageError, match="a GAN, which has no encoder"):
        Autoencoder.load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "method": "flow"}))
    with pytest.raises(UsageError, match=r"holds no generative model .* KeyError: 'flow'"):
        Generator.load(tmp_path)
    broken = network("gan")
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    Generator(broken).save(tmp_path)
    with pytest.raises(UsageError, match="not finite"):
        Generator.load(tmp_path)
