"""diffusers' network and autoencoder beside ours: tiny, random and local."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from torch import Tensor

from diffusion import Pipeline, RectifiedFlow, Settings, latent, peers
from labkit import UsageError


def vae(channels: int = 3, levels: int = 2) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=channels, out_channels=channels, latent_channels=2, norm_num_groups=2,
        block_out_channels=[4] * levels, down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
    ).eval()  # fmt: skip


def colours(n: int = 2, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    size = (n, channels, height, width)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("channels", "width", "multipliers", "size"),
    [(1, 8, (1, 2), (8, 12)), (3, 12, (1, 1, 2), (8, 8)), (4, 16, (4,), (7, 7))],
)
def test_their_network_has_the_face_of_ours(
    channels: int, width: int, multipliers: tuple[int, ...], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = peers.DiffusersUNet(channels, 5, width, multipliers, 1).eval()
    x, t = torch.randn(2, channels, *size), torch.tensor([0.2, 0.9])
    y = torch.tensor([0, network.null])
    with torch.no_grad():
        out = network(x, t, y)
        assert out.shape == x.shape
        for other in (network(x, t.flip(0), y), network(x, t, y.flip(0))):
            assert ((other - out).abs().amax(dim=(1, 2, 3)) > 1e-5).all()
        again = peers.DiffusersUNet(**network.shape)  # type: ignore[arg-type]
        again.load_state_dict(network.state_dict())
        assert torch.equal(again.eval()(x, t, y), out)
    assert isinstance(network.unet, UNet2DModel)
    levels = [block.resnets[0].out_channels for block in network.unet.down_blocks]
    assert levels == [width * m for m in multipliers]
    assert network.null == 5


def test_their_network_gets_the_time_in_steps_of_a_thousand() -> None:
    network, asked = peers.DiffusersUNet(1, 3, 8, (1,), 1), []
    network.unet.forward = lambda x, t, class_labels: asked.append(t) or SimpleNamespace(sample=x)
    network(torch.zeros(2, 1, 4, 4), torch.tensor([0.25, 1.0]), torch.zeros(2, dtype=torch.int64))
    assert asked[0].tolist() == [250, 1000]


def test_their_network_learns_with_both_optimisers() -> None:
    """A step along the gradient of the loss lowers it, and each weight is in one optimiser."""
    from labkit.learning.muon import Muon, others

    torch.manual_seed(0)
    network = peers.DiffusersUNet(1, 3, 8, (1, 2), 1)
    matrices = network.matrices()
    assert matrices
    assert all(p.ndim == 2 for p in matrices)
    rest = others(network, matrices)
    assert len(matrices) + len(rest) == len(list(network.parameters()))
    for embedding in (network.unet.time_embedding, network.unet.class_embedding):
        assert not {id(p) for p in embedding.parameters()} & {id(p) for p in matrices}
    optimizers = [torch.optim.AdamW(rest, 2e-3), Muon(matrices, 2e-3)]
    x, y, losses = torch.rand(16, 1, 8, 8) * 0.1 + 0.5, torch.arange(16) % 3, []
    for _ in range(12):
        torch.manual_seed(1)
        loss = RectifiedFlow().loss(network, x, y)
        network.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_pipeline_with_their_network_and_autoencoder_is_saved_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = peers.DiffusersUNet(2, 3, 8, (1, 2), 1).eval()
    settings = Settings(
        "flow", "cosine", 50, 0.0, 1.0, "euler", 2, 1.0, (3, 8, 8),
        network="diffusers", latent=(2, 4, 4), scale=1.5,
    )  # fmt: skip
    draw = Pipeline(network, settings, autoencoder=peers.DiffusersAutoencoder(vae(), 3))
    draw.save(tmp_path / "model")
    loaded = Pipeline.load(tmp_path / "model")
    assert loaded.settings == settings
    assert isinstance(loaded.network, peers.DiffusersUNet)
    labels = torch.arange(3)
    drawn = draw(labels, seed=1)
    assert drawn.shape == (3, 3, 8, 8)
    assert torch.equal(loaded(labels, seed=1), drawn)
    (tmp_path / "model" / "autoencoder" / "config.json").write_text('{"_diffusers_version": "0"}')
    with pytest.raises(UsageError, match="autoencoder"):
        Pipeline.load(tmp_path / "model")


def test_their_autoencoder_gets_pictures_from_minus_one_to_one(tmp_path: Path) -> None:
    theirs = vae()
    theirs.save_pretrained(tmp_path)
    ours = peers.DiffusersAutoencoder.load(tmp_path, 3)
    x = colours()
    z = ours.encode(x)
    with torch.no_grad():
        torch.testing.assert_close(z, theirs.encode(x / 255 * 2 - 1).latent_dist.mode())
        expected = theirs.decode(z).sample.clamp(-1, 1).add(1) / 2 * 255
    decoded = ours.decode(z)
    assert decoded.dtype == torch.uint8
    assert (decoded.float() - expected).abs().max() < 0.51
    assert expected.std() > 1


def test_a_colour_autoencoder_takes_grey_pictures() -> None:
    colour = vae()
    x = colours(channels=1)
    grey, rgb = peers.DiffusersAutoencoder(colour, 1), peers.DiffusersAutoencoder(colour, 3)
    z = grey.encode(x)
    torch.testing.assert_close(z, rgb.encode(x.expand(-1, 3, -1, -1)))
    mean = rgb.decode(z).float().mean(dim=1, keepdim=True)
    assert (grey.decode(z).float() - mean).abs().max() < 1.01


def test_autoencoders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for 1 channels, and the pictures have 3"):
        peers.DiffusersAutoencoder(vae(1), 3)
    with pytest.raises(UsageError, match="holds no AutoencoderKL"):
        peers.DiffusersAutoencoder.load(tmp_path / "nothing", 1)
    vae(levels=3).save_pretrained(tmp_path)
    data: Any = SimpleNamespace(name="set", train=SimpleNamespace(x=colours(2, 3, 10, 10).numpy()))
    run: Any = SimpleNamespace(device=torch.device("cpu"))
    with pytest.raises(UsageError, match=r"makes pictures \(3, 8, 8\) of set's \(3, 10, 10\)"):
        latent.obtain(str(tmp_path), run, data)
