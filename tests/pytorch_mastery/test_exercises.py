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
    """Class 1 where the mean pixel of an image, after batch normalisation, is above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training or not torch.is_inference_mode_enabled(), "evaluated in train mode"
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
