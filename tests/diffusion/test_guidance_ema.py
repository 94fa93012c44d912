"""Guidance and weight averaging, which are small and easy to get wrong."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffusion import ema, guidance


@pytest.mark.exercise("guidance.guide")
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guide_is_the_formula_of_the_paper(scale: float) -> None:
    """Ho & Salimans 2022, eq. 6, with w = scale - 1: (1 + w) conditional - w unconditional."""
    c, u = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.5, 4.0, 0.5])
    w = scale - 1
    torch.testing.assert_close(guidance.guide(c, u, scale), (1 + w) * c - w * u)


@pytest.mark.exercise("guidance.guide")
def test_guiding_gaussian_scores_sharpens_the_class() -> None:
    """Scores of N(m, 1) and N(0, 4): at scale s the guided score vanishes where the two balance."""
    m, s = 1.0, 2.0
    x = torch.tensor([s * m / (s - (s - 1) / 4)])
    balance = guidance.guide(m - x, -x / 4, s)
    torch.testing.assert_close(balance, torch.zeros(1), atol=1e-6, rtol=0)


@pytest.mark.exercise("guidance.guide")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_guide_of_a_batch_changes_no_argument_and_no_type(dtype: torch.dtype) -> None:
    c, u = torch.randn(2, 5, 1, 2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    kept = c.clone(), u.clone()
    found = guidance.guide(c, u, 2.5)
    assert found.dtype == dtype
    rows = zip(c.flatten().tolist(), u.flatten().tolist(), strict=True)
    expected = [b + 2.5 * (a - b) for a, b in rows]
    assert found.flatten().tolist() == pytest.approx(expected, rel=0.02, abs=0.05)
    assert torch.equal(c, kept[0])
    assert torch.equal(u, kept[1])


@pytest.mark.exercise("guidance.guide")
def test_guide_is_differentiable_in_both_answers() -> None:
    c = torch.linspace(-1, 1, 4, dtype=torch.float64, requires_grad=True)
    u = c.detach().flip(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, u: guidance.guide(c, u, 2.5), [c, u])


@pytest.mark.exercise("guidance.guide")
def test_scale_zero_ignores_the_label_and_one_is_the_conditional_model() -> None:
    c, u = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 4.0]])
    assert torch.equal(guidance.guide(c, u, 0), u)
    torch.testing.assert_close(guidance.guide(c, u, 1), c)


@pytest.mark.exercise("guidance.drop_labels")
def test_labels_are_dropped_one_by_one_at_the_stated_rate() -> None:
    torch.manual_seed(0)
    labels = torch.arange(20_000) % 10
    dropped = guidance.drop_labels(labels, 0.25, null=10)
    assert dropped.dtype == torch.int64
    hidden = dropped == 10
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(dropped[~hidden], labels[~hidden])
    together = (hidden[1:] & hidden[:-1]).float().mean().item()
    assert together == pytest.approx(0.25**2, abs=0.01), "neighbours are dropped independently"


@pytest.mark.exercise("guidance.drop_labels")
def test_probability_zero_drops_none() -> None:
    labels = torch.arange(100) % 10
    assert torch.equal(guidance.drop_labels(labels, 0.0, null=10), labels)


@pytest.mark.exercise("guidance.drop_labels")
@pytest.mark.parametrize("null", [0, 3, 100])
def test_probability_one_drops_all_and_the_labels_given_stay(null: int) -> None:
    labels = torch.arange(5)
    assert guidance.drop_labels(labels, 1.0, null).tolist() == [null] * 5
    assert labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.exercise("guidance.drop_labels")
@pytest.mark.parametrize("size", [1, 3])
def test_small_batches_are_dropped_at_the_same_rate(size: int) -> None:
    """And which labels go is new at every call, and comes from PyTorch's generator."""
    torch.manual_seed(0)
    labels = torch.zeros(size, dtype=torch.int64)
    calls = [guidance.drop_labels(labels, 0.25, 9).tolist() for _ in range(2000)]
    for place in range(size):
        share = sum(row[place] == 9 for row in calls) / len(calls)
        assert share == pytest.approx(0.25, abs=0.04)
    together = sum(all(value == 9 for value in row) for row in calls) / len(calls)
    assert together == pytest.approx(0.25**size, abs=0.04)
    torch.manual_seed(0)
    assert [guidance.drop_labels(labels, 0.25, 9).tolist() for _ in range(2000)] == calls


@pytest.mark.exercise("guidance.drop_labels")
def test_labels_are_dropped_on_their_own_device() -> None:
    labels = torch.zeros(4, dtype=torch.int64, device="meta")
    found = guidance.drop_labels(labels, 0.5, 9)
    assert (found.device.type, found.dtype, found.shape) == ("meta", torch.int64, (4,))


@pytest.mark.exercise("guidance.drop_labels")
def test_probability_zero_drops_none_even_if_a_draw_is_zero() -> None:
    """torch.rand draws from 2^24 numbers, 0 among them: this seed meets it within 2^22 draws."""
    torch.manual_seed(1)
    assert (torch.rand(2**22) == 0).any()
    torch.manual_seed(1)
    assert not guidance.drop_labels(torch.zeros(2**22, dtype=torch.int64), 0.0, 9).any()


class Echo(nn.Module):
    """Answers 1 for the null label and 10 (label + 1) for any other; counts the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        answer = torch.where(labels == 3, 1, 10 * (labels + 1))
        return answer.view(-1, 1, 1, 1) * torch.ones_like(x)


@pytest.mark.parametrize(("scale", "expected"), [(0, [1, 1]), (1, [10, 30]), (2, [19, 59])])
def test_guided_asks_for_the_label_and_for_none(scale: float, expected: list[float]) -> None:
    model = Echo()
    out = guidance.guided(model, torch.tensor([0, 2]), scale, null=3)(torch.zeros(2, 1, 4, 4), 0.5)
    assert out[:, 0, 0, 0].tolist() == expected
    assert model.calls == 1


@pytest.mark.exercise("ema.ema_decay")
@pytest.mark.parametrize("limit", [0.9, 0.999])
def test_decay_is_that_of_diffusers(limit: float) -> None:
    theirs = EMAModel([torch.zeros(1)], decay=limit)
    for n in (1, 5, 80, 10_000):
        assert ema.ema_decay(n, limit) == pytest.approx(theirs.get_decay(n + 1))


@pytest.mark.exercise("ema.ema_decay")
def test_the_first_decays_by_hand() -> None:
    """1/10, 2/11, 3/12 ... until the limit is reached, which is then never left."""
    assert [ema.ema_decay(n, 0.5) for n in range(9)] == pytest.approx(
        [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5]
    )
    assert ema.ema_decay(0, 0.05) == 0.05
    assert ema.ema_decay(0, 0.9) == 0.1
    assert ema.ema_decay(10**9, 0.9999) == 0.9999


@pytest.mark.exercise("ema.ema_decay")
def test_decay_after_the_warmup_is_the_limit() -> None:
    """(1 + n) / (10 + n) is 0.99 at n = 890."""
    assert [ema.ema_decay(n, 0.99) for n in (891, 2000, 9999)] == [0.99] * 3
    assert ema.ema_decay(889, 0.99) < 0.99


def warmed_up(model: ema.M, limit: float) -> ema.EMA[ema.M]:
    """An average whose warm-up is over before its first update, so that its decay is constant."""
    average = ema.EMA(model, limit)
    average.updates = 10_000
    return average


def test_average_of_two_known_models_is_the_closed_form() -> None:
    """From weights 0 after weights 1, n updates at a constant d: the average is 1 - d^n."""
    model = nn.Linear(3, 2)
    nn.init.zeros_(model.weight)
    average = warmed_up(model, 0.9)
    nn.init.ones_(model.weight)
    for _ in range(20):
        average.update(model)
    expected = torch.full((2, 3), 1 - 0.9**20)
    torch.testing.assert_close(average.average.weight, expected, rtol=1e-5, atol=1e-6)
    assert not average.average.weight.requires_grad


def test_warmed_up_average_forgets_its_start() -> None:
    """Product over n < N of (1 + n) / (10 + n) = 9! N! / (N + 9)!: below 1e-6 from N = 40."""
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 1e3)
    average = ema.EMA(model, 0.9999)
    nn.init.zeros_(model.weight)
    for _ in range(40):
        average.update(model)
    assert abs(average.average.weight.item()) < 1e-3


def test_buffers_of_the_average_are_the_models_newest() -> None:
    """PyTorch's own averaged model is the oracle; without its buffers BatchNorm knows nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    ours = warmed_up(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(model)  # the first call copies
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(30):
        loss = model(3 + 2 * torch.randn(16, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ours.update(model)
        theirs.update_parameters(model)
    x = 3 + 2 * torch.randn(16, 3)
    torch.testing.assert_close(ours.average(x), theirs.module.eval()(x))
    found, newest = dict(ours.average.named_buffers()), dict(model.named_buffers())
    assert found["1.num_batches_tracked"] == 30
    assert all(torch.equal(found[name], newest[name]) for name in newest)
    assert all(found[name].data_ptr() != newest[name].data_ptr() for name in newest)


def test_ema_comes_back_from_its_state() -> None:
    first, second = ema.EMA(nn.Linear(2, 2)), ema.EMA(nn.Linear(2, 2))
    first.update(nn.Linear(2, 2))
    second.load_state_dict(first.state_dict())  # type: ignore[arg-type]
    assert second.updates == 1
    torch.testing.assert_close(second.average.weight, first.average.weight)
