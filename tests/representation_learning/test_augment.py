"""Batched augmentation against torchvision's, image by image, and in distribution."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from representation_learning import augment
from representation_learning.augment import Augmentation


def images(n: int = 6, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.exercise("augment.resized_crop")
@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14)])
def test_resized_crop_is_torchvisions(height: int, width: int) -> None:
    x = torch.rand(6, 3, height, width, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor(
        [
            [0, 0, height, width],
            [0, 0, 1, 1],
            [3, 5, 4, 7],
            [height - 2, width - 3, 2, 3],
            [1, 2, 7, 5],
            [2, 0, 6, width],
        ]
    )
    flip = torch.tensor([False, False, True, False, True, False])
    out = augment.resized_crop(x, boxes, flip)
    for i, (box, mirrored) in enumerate(zip(boxes.tolist(), flip, strict=True)):
        expected = TF.resized_crop(x[i], *box, size=[height, width], antialias=False)
        expected = TF.horizontal_flip(expected) if mirrored else expected
        torch.testing.assert_close(out[i], expected, atol=2e-6, rtol=0)


@pytest.mark.exercise("augment.resized_crop")
@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_image_or_one_channel_is_cropped_as_torchvision_does(
    batch: int, channels: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, channels, 6, 10, generator=generator, dtype=dtype)
    boxes = torch.tensor([[1, 2, 3, 5], [0, 4, 6, 1], [5, 9, 1, 1]])[:batch]
    flip = torch.tensor([True, False, True])[:batch]
    given = [v.clone() for v in (x, boxes, flip)]
    out = augment.resized_crop(x, boxes, flip)
    assert all(map(torch.equal, (x, boxes, flip), given)), "the arguments are left alone"
    assert (out.shape, out.dtype) == (x.shape, dtype)
    for i, (box, mirrored) in enumerate(zip(boxes.tolist(), flip, strict=True)):
        expected = TF.resized_crop(x[i], *box, size=[6, 10], antialias=False)
        expected = TF.horizontal_flip(expected) if mirrored else expected
        torch.testing.assert_close(out[i], expected, atol=2e-6, rtol=0)


@pytest.mark.exercise("augment.resized_crop")
def test_the_gradient_of_a_crop_is_torchvisions() -> None:
    x = images(2, 8).requires_grad_()
    boxes, flip = torch.tensor([[1, 2, 5, 4], [0, 0, 8, 3]]), torch.tensor([True, False])
    direction = images(2, 8, seed=1)
    (ours,) = torch.autograd.grad(augment.resized_crop(x, boxes, flip), x, direction)
    crops = [
        TF.resized_crop(x[i], *box, size=[8, 8], antialias=False)
        for i, box in enumerate(boxes.tolist())
    ]
    expected = torch.stack([TF.horizontal_flip(crops[0]), crops[1]])
    torch.testing.assert_close(ours, torch.autograd.grad(expected, x, direction)[0])


@pytest.mark.exercise("augment.resized_crop")
def test_the_whole_box_is_the_image_itself() -> None:
    x = images(2)
    boxes = torch.tensor([[0, 0, 32, 32]] * 2)
    out = augment.resized_crop(x, boxes, torch.tensor([False, True]))
    torch.testing.assert_close(out[0], x[0])
    torch.testing.assert_close(out[1], x[1].flip(-1))


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("brightness", [0.2, 0.9, 1.0, 1.3, 1.8, 0.6]),
        ("contrast", [0.2, 0.9, 1.0, 1.3, 1.8, 0.0]),
        ("saturation", [0.2, 0.9, 1.0, 1.3, 1.8, 0.0]),
        ("hue", [-0.5, -0.2, 0.0, 0.1, 0.33, 0.5]),
    ],
)
def test_colour_operations_are_torchvisions(name: str, factors: list[float]) -> None:
    x = images()
    x[0, :, :4] = 0.5  # grey pixels have no hue
    x[1, :, :4] = 0.0
    x[2, 1] = x[2, 0]  # ties between channels
    out = getattr(augment, f"adjust_{name}")(x, torch.tensor(factors).view(-1, 1, 1, 1))
    for i, factor in enumerate(factors):
        expected = getattr(TF, f"adjust_{name}")(x[i], factor)
        torch.testing.assert_close(out[i], expected, atol=2e-6, rtol=0)


def test_greyscale_is_torchvisions() -> None:
    x = images()
    torch.testing.assert_close(
        augment.greyscale(x), TF.rgb_to_grayscale(x, num_output_channels=3), atol=2e-6, rtol=0
    )


@pytest.mark.parametrize("size", [3, 5])
def test_blur_is_torchvisions(size: int) -> None:
    x, sigmas = images(), [0.1, 0.4, 0.8, 1.2, 1.7, 2.0]
    out = augment.gaussian_blur(x, torch.tensor(sigmas).view(-1, 1, 1, 1), size)
    for i, sigma in enumerate(sigmas):
        expected = TF.gaussian_blur(x[i], [size, size], [sigma, sigma])
        torch.testing.assert_close(out[i], expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(32, 32, (0.2, 1.0), (3 / 4, 4 / 3)), (20, 40, (0.5, 1.0), (0.9, 1.1))],
)
def test_boxes_are_drawn_as_torchvision_draws_them(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Distribution of each side and corner: greatest gap between the two empirical CDFs."""
    torch.manual_seed(0)
    n = 6000
    ours = augment.crop_boxes(n, height, width, scale, ratio)
    crop = v2.RandomResizedCrop((height, width), scale=scale, ratio=ratio)
    blank = torch.zeros(3, height, width)
    keys = ("top", "left", "height", "width")
    drawn = [crop.make_params([blank]) for _ in range(n)]
    theirs = torch.tensor([[params[key] for key in keys] for params in drawn])
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    assert (ours >= torch.tensor([0, 0, 1, 1])).all()
    for column in range(4):
        grid = torch.arange(max(height, width) + 1)
        cdfs = [(boxes[:, column, None] <= grid).double().mean(0) for boxes in (ours, theirs)]
        gap = (cdfs[0] - cdfs[1]).abs().max().item()
        assert gap < 1.95 * (2 / n) ** 0.5, (keys[column], gap)  # Kolmogorov-Smirnov at 0.1 %


def test_an_impossible_box_becomes_the_central_one() -> None:
    boxes = augment.crop_boxes(50, 10, 40, (0.99, 1.0), (0.9, 1.1))
    assert (boxes == torch.tensor([0, (40 - 11) // 2, 10, 11])).all()


def test_the_whole_pipeline_has_torchvisions_mean_and_spread() -> None:
    """Thousands of views of one image: mean and deviation of every pixel agree."""
    torch.manual_seed(0)
    n, side = 4000, 8
    image = images(1, side, seed=3)
    jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.2, 1.0), antialias=False),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([jitter], p=0.8),
            v2.RandomGrayscale(0.2),
        ]
    )
    raw = (image * 255).round().to(torch.uint8)
    batches = [raw.expand(20, -1, -1, -1)] * (n // 20)  # the order of colours is one a batch
    mine = torch.cat([Augmentation(scale=(0.2, 1.0), colour=0.5, blur=0.0)(b) for b in batches])
    other = torch.stack([theirs(raw[0].float() / 255) for _ in range(n)])
    assert mine.min() >= 0
    assert mine.max() <= 1
    error = 4.5 * (2 / n) ** 0.5 * other.std(0).max().item()  # 4.5 standard errors
    assert error < 0.035
    torch.testing.assert_close(mine.mean(0), other.mean(0), atol=error, rtol=0)
    torch.testing.assert_close(mine.std(0), other.std(0), atol=error, rtol=0)


def test_every_image_gets_its_own_view() -> None:
    torch.manual_seed(0)
    out = Augmentation()(torch.full((64, 3, 16, 16), 100, dtype=torch.uint8))
    means = out.mean(dim=(1, 2, 3))
    assert len(set(means.tolist())) > 40, "one brightness for the whole batch"


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    x = (images(4) * 255).to(torch.uint8)
    still = Augmentation(scale=(1, 1), ratio=(1, 1), flip=0, jitter=0, grey=0, blur=0)
    torch.testing.assert_close(still(x), x.float() / 255)


def test_an_operation_sees_only_the_images_it_is_for() -> None:
    torch.manual_seed(0)
    x = images(1000, 4)
    out = augment.chosen(x, 0.3, torch.zeros_like)
    changed = (out == 0).all(dim=(1, 2, 3))
    assert 0.25 < changed.float().mean() < 0.35
    assert torch.equal(out[~changed], x[~changed])
