"""Networks: their shapes, and the spectral norm against PyTorch's and against the SVD."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from generative_models import Decoder, Discriminator, Encoder, model


def matrix(rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


@pytest.mark.exercise("model.power_iteration")
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 7), (6, 2), (1, 5)])
def test_iterations_converge_to_the_largest_singular_value(rows: int, columns: int) -> None:
    weight = matrix(rows, columns)
    u = torch.ones(rows, dtype=torch.float64) / rows**0.5
    for _ in range(300):
        sigma, u = model.power_iteration(weight, u)
    assert sigma.item() == pytest.approx(float(np.linalg.svd(weight.numpy())[1][0]), rel=1e-6)
    assert sigma.shape == ()


@pytest.mark.exercise("model.power_iteration")
def test_one_iteration_by_hand() -> None:
    """And the u that was given is not changed, nor does the new one carry a gradient."""
    weight, u = matrix(3, 4).requires_grad_(), torch.tensor([1.0, 0, 0], dtype=torch.float64)
    W = weight.detach().numpy()
    v = W[0] / np.linalg.norm(W[0])
    expected = W @ v / np.linalg.norm(W @ v)
    sigma, new = model.power_iteration(weight, u)
    np.testing.assert_allclose(new.numpy(), expected)
    assert sigma.item() == pytest.approx(float(expected @ W @ v))
    assert u.tolist() == [1, 0, 0]
    assert not new.requires_grad
    (gradient,) = torch.autograd.grad(sigma, weight)
    np.testing.assert_allclose(gradient.numpy(), np.outer(expected, v))


@pytest.mark.exercise("model.power_iteration")
def test_a_zero_matrix_has_norm_zero() -> None:
    sigma, u = model.power_iteration(torch.zeros(2, 3), torch.tensor([0.6, 0.8]))
    assert sigma.item() == 0
    assert u.isfinite().all()
    tiny, _ = model.power_iteration(torch.full((1, 1), 1e-5), torch.ones(1))
    assert tiny.item() == pytest.approx(1e-5)


@pytest.mark.exercise("model.power_iteration")
def test_a_norm_below_the_floor_counts_as_the_floor() -> None:
    """W = 1e-13: |W^T u| is 1e-13, so v is 0.1; |W v| is 1e-14, so u is 0.01."""
    weight = torch.full((1, 1), 1e-13, dtype=torch.float64)
    sigma, u = model.power_iteration(weight, torch.ones(1, dtype=torch.float64))
    assert u.item() == pytest.approx(0.01)
    assert sigma.item() == pytest.approx(1e-16)


def test_spectral_convolution_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    theirs = spectral_norm(nn.Conv2d(3, 5, (4, 2), stride=2, padding=1).double())
    ours = model.SpectralConv2d(3, 5, (4, 2), 2, 1).double()
    pair = theirs.parametrizations.weight
    ours.load_state_dict(
        {"weight": pair.original, "bias": theirs.bias, "u": pair[0]._u}  # type: ignore[index]
    )
    x = torch.randn(2, 3, 8, 6).double()
    for _ in range(200):  # one iteration at each call in training; theirs takes sigma half a
        expected, found = theirs(x), ours(x)  # step later than the paper, which shows until here
    torch.testing.assert_close(found, expected)
    (theirs_gradient,) = torch.autograd.grad(expected.square().sum(), pair.original)
    (our_gradient,) = torch.autograd.grad(found.square().sum(), ours.weight)
    torch.testing.assert_close(our_gradient, theirs_gradient)
    ours.eval()
    before = ours.u.clone()
    ours(x)
    assert torch.equal(ours.u, before), "evaluation does not change it"


@pytest.mark.parametrize("image", [(1, 8, 8), (3, 8, 12), (1, 28, 28)])
@pytest.mark.parametrize("spatial", [False, True])
def test_shapes(image: model.Shape, spatial: bool) -> None:
    h, w = (image[1] // 4, image[2] // 4) if spatial else (1, 1)
    encoder = Encoder(image, 4, 2, 6, spatial).eval()
    decoder = Decoder(image, 4, 2, 3, spatial).eval()
    assert encoder(torch.rand(1, *image)).shape == (1, 6, h, w)
    z = decoder.prior(2, torch.Generator().manual_seed(0))
    assert z.shape == (2, 3, h, w) == (2, *decoder.latent)
    pictures = decoder.decode(z)
    assert pictures.shape == (2, *image)
    torch.testing.assert_close(pictures, decoder(z).sigmoid())
    assert Discriminator(image, 4, 2)(pictures).shape == (2,)


def test_channels_double_from_level_to_level_and_the_decoder_mirrors_the_encoder() -> None:
    def convolutions(module: nn.Module) -> list[int]:
        kinds = (nn.Conv2d, nn.ConvTranspose2d)
        return [m.out_channels for m in module.modules() if isinstance(m, kinds)]

    assert convolutions(Encoder((3, 16, 16), 8, 3, 2, False)) == [8, 16, 32, 2]
    assert convolutions(Decoder((3, 16, 16), 8, 3, 2, False)) == [32, 16, 8, 3]
    assert convolutions(Discriminator((3, 16, 16), 8, 3)) == [8, 16, 32, 1]


def test_the_discriminator_judges_a_picture_alone() -> None:
    torch.manual_seed(0)
    judge = Discriminator((1, 8, 8), 4, 2).eval()
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(judge(x)[2:3], judge(x[2:3]))


def test_spectral_norm_bounds_every_layer_and_can_be_left_out() -> None:
    torch.manual_seed(0)
    judge = Discriminator((1, 8, 8), 4, 2)
    layers = [m for m in judge.modules() if isinstance(m, model.SpectralConv2d)]
    assert len(layers) == 3
    for _ in range(50):
        judge(torch.rand(2, 1, 8, 8))
    for layer in layers:
        sigma, _ = model.power_iteration(layer.weight.flatten(1), layer.u)
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1) / sigma, 2).item()
        assert largest == pytest.approx(1, rel=1e-2)
    plain = Discriminator((1, 8, 8), 4, 2, spectral_norm=False)
    assert not any(isinstance(m, model.SpectralConv2d) for m in plain.modules())


@pytest.mark.parametrize(("image", "levels"), [((1, 28, 28), 3), ((1, 4, 4), 3), ((1, 8, 8), 0)])
def test_pictures_that_cannot_be_halved_so_often_are_refused(
    image: model.Shape, levels: int
) -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        Decoder(image, 4, levels, 2, spatial=False)


def test_pixels() -> None:
    x = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    assert model.to_pictures(x).tolist() == [0, 0, 128, 255, 255]
