"""Augmentation, schedule and evaluation, each against something that knows the answer."""

import pytest
import torch
from torch import Tensor, nn

from pytorch_mastery import augment, evaluate, schedule


def one_dot(n: int, channels: int = 2, side: int = 11) -> Tensor:
    """n pictures, black but for the middle pixel, which is 7 in every channel."""
    x = torch.zeros(n, channels, side, side, dtype=torch.uint8)
    x[:, :, side // 2, side // 2] = 7
    return x


@pytest.mark.exercise("augment.random_shift")
def test_every_image_moves_by_itself_to_every_place_in_reach() -> None:
    torch.manual_seed(0)
    out = augment.random_shift(one_dot(4000), 2)
    assert out.shape == (4000, 2, 11, 11)
    assert out.dtype == torch.uint8
    assert (out.sum(dim=(2, 3)) == 7).all(), "a shift moves pixels and changes none"
    assert torch.equal(out[:, 0], out[:, 1]), "channels move together"
    places = (out[:, 0] > 0).float().mean(dim=0)
    assert places[3:8, 3:8].sum().item() == pytest.approx(1)
    torch.testing.assert_close(places[3:8, 3:8], torch.full((5, 5), 1 / 25), atol=0.015, rtol=0)


@pytest.mark.exercise("augment.random_shift")
def test_what_leaves_is_lost_and_zeros_come_in() -> None:
    torch.manual_seed(0)
    x = torch.arange(1, 26).view(1, 1, 5, 5).expand(200, 1, 5, 5)
    for image in augment.random_shift(x, 1)[:, 0]:
        dy, dx = next(
            (dy, dx)
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if image[2, 2] == x[0, 0, 2 + dy, 2 + dx]
        )
        for i in range(5):
            for j in range(5):
                inside = 0 <= i + dy < 5 and 0 <= j + dx < 5
                assert image[i, j] == (x[0, 0, i + dy, j + dx] if inside else 0)


@pytest.mark.exercise("augment.random_shift")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_any_type_and_shape_is_moved_and_the_images_given_stay(dtype: torch.dtype) -> None:
    """Wider than high; one image; one channel; a reach beyond the edge."""
    torch.manual_seed(0)
    for shape, reach in (((30, 3, 4, 7), 2), ((1, 1, 3, 5), 1), ((40, 1, 2, 3), 4)):
        x = (torch.rand(shape) * 9 + 1).to(dtype)
        before = x.clone()
        out = augment.random_shift(x, reach)
        assert (out.shape, out.dtype) == (x.shape, dtype)
        assert torch.equal(x, before)
        for image, moved in zip(x, out, strict=True):
            places = [
                shifted(image, dy, dx)
                for dy in range(-reach, reach + 1)
                for dx in range(-reach, reach + 1)
            ]
            assert any(torch.equal(moved, place) for place in places)


def shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    """out[c, i, j] = image[c, i + dy, j + dx], and 0 outside, pixel by pixel."""
    out = torch.zeros_like(image)
    H, W = image.shape[1:]
    for i in range(H):
        for j in range(W):
            if 0 <= i + dy < H and 0 <= j + dx < W:
                out[:, i, j] = image[:, i + dy, j + dx]
    return out


@pytest.mark.exercise("augment.random_shift")
def test_the_gradient_of_a_moved_pixel_goes_back_to_where_it_came_from() -> None:
    x = torch.arange(1.0, 31.0).view(1, 1, 5, 6).expand(40, 1, 5, 6).clone().requires_grad_()
    torch.manual_seed(0)
    out = augment.random_shift(x, 2)
    (grad,) = torch.autograd.grad(out.square().sum() / 2, x)
    kept = [set(image.unique().tolist()) for image in out]  # every pixel is another number
    for image, back, numbers in zip(x.detach(), grad, kept, strict=True):
        expected = [v if v in numbers else 0.0 for v in image.flatten().tolist()]
        assert back.flatten().tolist() == expected


@pytest.mark.exercise("augment.random_shift")
def test_no_reach_moves_nothing_and_a_seed_moves_the_same() -> None:
    x = torch.rand(20, 1, 5, 6)
    assert torch.equal(augment.random_shift(x, 0), x)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(augment.random_shift(x, 2))
    assert torch.equal(drawn[0], drawn[1]), "torch.manual_seed decides what is drawn"
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.exercise("schedule.one_cycle")
def test_the_rise_takes_three_tenths_when_none_is_given() -> None:
    assert schedule.one_cycle(29, 100, 2.0) == pytest.approx(2.0)
    assert schedule.one_cycle(0, 100, 2.0) == pytest.approx(2.0 / 25)
    assert schedule.one_cycle(99, 100, 2.0) == pytest.approx(2.0 / 25e4)


@pytest.mark.exercise("schedule.one_cycle")
@pytest.mark.parametrize(
    ("total", "rise", "first"),
    [
        (50, 0.02, 1.0),
        (50, 0.020000000000000004, 1.0),  # times 50 it is 1 and the last bit of 1
        (10, 0.1 + 5e-11, 1.0),
        (10, 0.1 + 1e-8, 1 / 25),  # a ten-millionth of a step is a way up
        (10, 0.1 + 2e-10, 1 / 25),
    ],
)
def test_a_rise_of_one_step_is_one_step_to_rounding(total: int, rise: float, first: float) -> None:
    assert schedule.one_cycle(0, total, 1.0, rise) == pytest.approx(first)


@pytest.mark.exercise("schedule.one_cycle")
@pytest.mark.parametrize(("total", "peak", "rise"), [(100, 0.01, 0.3), (937, 2.0, 0.05)])
def test_one_cycle_is_that_of_torch(total: int, peak: float, rise: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total, pct_start=rise)
    for step in range(total):
        assert schedule.one_cycle(step, total, peak, rise) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-6
        )
        optimizer.step()
        if step < total - 1:
            theirs.step()


class Brightness(nn.Module):
    """Class 1 where the mean pixel of an image, after batch normalisation, is above 0.

    With gradients off and in eval mode, or the test that runs it fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training, "evaluated in train mode"
        assert not torch.is_grad_enabled(), "evaluated with gradients"
        mean = self.norm(images.mean(dim=(1, 2, 3))[:, None])
        return torch.cat([-mean, mean], dim=1)


@pytest.mark.exercise("evaluate.accuracy")
@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_accuracy_is_the_share_of_right_answers_whatever_the_batches(batch_size: int) -> None:
    x = torch.full((10, 1, 4, 4), 200, dtype=torch.uint8)  # all bright: answered 1 in eval mode
    y = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    assert evaluate.accuracy(Brightness(), x, y, batch_size) == pytest.approx(70)


@pytest.mark.exercise("evaluate.accuracy")
@pytest.mark.parametrize("training", [True, False])
def test_accuracy_leaves_the_model_as_it_was(training: bool) -> None:
    model = Brightness().train(training)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    value = evaluate.accuracy(model, torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.ones(4))
    assert value == pytest.approx(100)
    assert model.training is training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


class Threshold(nn.Module):
    """The class of an image by its mean: 0 below 0.3, 1 below 0.7, 2 above."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1, "pixels are given to the model in [0, 1]"
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, 0.4 - (mean - 0.5).abs(), mean - 0.5], dim=1)


@pytest.mark.exercise("evaluate.accuracy")
def test_accuracy_counts_the_right_answers_to_images_in_0_to_1() -> None:
    """Grey values from 0 to 255, so that a wrong scale, class or order is seen."""
    grey = torch.tensor([0, 60, 70, 85, 127, 128, 170, 185, 254, 255], dtype=torch.uint8)
    truth = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    x = grey.view(-1, 1, 1, 1).expand(-1, 3, 2, 5)
    for y, right in ((truth, 10), (truth.roll(1), 7), (2 - truth, 4)):
        for batch_size in (1, 3, 500):
            value = evaluate.accuracy(Threshold(), x, y, batch_size)
            assert isinstance(value, float)
            assert value == pytest.approx(10 * right)
    assert evaluate.accuracy(Threshold(), x[:1], truth[:1]) == 100
    assert evaluate.accuracy(Threshold(), x[:3], truth[:3] + 1) == 0
    assert evaluate.accuracy(Threshold(), x[:3], torch.tensor([0, 1, 1])) == pytest.approx(100 / 3)


@pytest.mark.exercise("evaluate.accuracy")
@pytest.mark.parametrize(
    ("count", "given", "sizes"),
    [(7, (3,), [3, 3, 1]), (4, (2,), [2, 2]), (1, (9,), [1]), (501, (), [500, 1])],
)
def test_the_model_sees_a_batch_at_a_time(
    count: int, given: tuple[int, ...], sizes: list[int]
) -> None:
    """And no image twice, nor one that was padded in; of what is not given, 500."""
    seen: list[int] = []

    class Counting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)

    x, y = torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.ones(count, dtype=torch.int64)
    assert evaluate.accuracy(Counting(), x, y, *given) == 100
    assert seen == sizes


@pytest.mark.exercise("evaluate.accuracy")
def test_white_is_exactly_1() -> None:
    """A model that tells 254 from 255: dividing by 256, or by 254, is seen."""

    class White(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            near = (images.mean(dim=(1, 2, 3)) - 1).abs() < 0.001
            return torch.stack([~near, near], dim=1).float()

    x = torch.tensor([255, 254], dtype=torch.uint8).view(2, 1, 1, 1)
    assert evaluate.accuracy(White(), x, torch.tensor([1, 0])) == 100
