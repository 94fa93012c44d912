"""M: its LSTM against torch's, its losses against loops, its baselines against closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from world_models import evaluate
from world_models.latents import Latents
from world_models.mdn import log_prob
from world_models.rnn import MDNRNN, MemoryLearner, Sequence, losses, reset_state
from world_models.settings import RNNSettings

T, B, D = 9, 3, 4


def sequence(steps: int = T, batch: int = B, latent: int = D, seed: int = 0) -> Sequence:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def seldom(share: float) -> Tensor:
        return torch.rand((steps, batch), generator=generator) < share

    return Sequence(
        z=normal(steps + 1, batch, latent), action=normal(steps, batch, 3),
        reward=5 * normal(steps, batch), terminated=seldom(0.2), valid=~seldom(0.2),
        first=seldom(0.2),
    )  # fmt: skip


@pytest.mark.exercise("rnn.reset_state")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_begin_an_episode_forget_all(dtype: torch.dtype) -> None:
    hidden, cell = torch.randn(5, 3, dtype=dtype), torch.randn(5, 3, dtype=dtype)
    hidden[1, 0], cell[4, 2] = math.nan, math.inf
    kept = hidden.clone(), cell.clone()
    first = torch.tensor([False, True, False, False, True])
    new_hidden, new_cell = reset_state((hidden, cell), first)
    assert new_hidden.dtype == new_cell.dtype == dtype
    for row in range(5):
        for new, old in ((new_hidden, kept[0]), (new_cell, kept[1])):
            wanted = torch.zeros(3, dtype=dtype) if first[row] else old[row]
            assert torch.equal(new[row], wanted)
    torch.testing.assert_close(hidden, kept[0], equal_nan=True, atol=0, rtol=0)
    torch.testing.assert_close(cell, kept[1], atol=0, rtol=0)


@pytest.mark.exercise("rnn.reset_state")
def test_a_batch_of_one_and_nobody_begins() -> None:
    state = torch.randn(1, 6), torch.randn(1, 6)
    same = reset_state(state, torch.tensor([False]))
    assert all(torch.equal(a, b) for a, b in zip(state, same, strict=True))
    blank = reset_state(state, torch.tensor([True]))
    assert all((part == 0).all() for part in blank)
    assert all(part.shape == (1, 6) for part in blank)


@pytest.mark.exercise("rnn.reset_state")
def test_gradients_stop_where_an_episode_begins() -> None:
    state = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    hidden, cell = reset_state(state, torch.tensor([True, False]))
    (hidden.sum() + 2 * cell.sum()).backward()
    for part, value in zip(state, (1.0, 2.0), strict=True):
        assert part.grad is not None
        assert part.grad.tolist() == [[0.0] * 3, [value] * 3]


def test_unrolled_it_is_torchs_lstm_on_each_episode() -> None:
    torch.manual_seed(0)
    model = MDNRNN(D, 3, hidden=6, mixtures=2)
    lstm = nn.LSTM(D + 3, 6)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(lstm, f"{name}_l0").data = getattr(model.cell, name).data
    data = sequence()._replace(first=torch.zeros(T, B, dtype=torch.bool))
    data.first[4, 1] = data.first[7, 1] = data.first[2, 2] = True
    found = model.unroll(data)
    x = torch.cat([data.z[:-1], data.action], dim=-1)
    for b in range(B):
        begins = [0, *(data.first[:, b].nonzero().flatten().tolist()), T]
        parts = [lstm(x[i:j, b : b + 1])[0] for i, j in itertools.pairwise(begins)]
        expected = model.predict(torch.cat(parts)[:, 0])
        for a, e in zip(found.latent, expected.latent, strict=True):
            torch.testing.assert_close(a[:, b], e)
        torch.testing.assert_close(found.reward[:, b], expected.reward)
        torch.testing.assert_close(found.end[:, b], expected.end)


def test_the_head_is_cut_as_its_parts_are_named() -> None:
    model = MDNRNN(D, 3, hidden=5, mixtures=2)
    assert model.head.out_features == 3 * D * 2 + 2
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.arange(float(model.head.out_features)))
    found = model.predict(torch.zeros(7, 1, 5))
    assert found.latent.logits.shape == found.latent.mean.shape == (7, 1, D, 2)
    assert found.latent.mean[0, 0].flatten().tolist() == list(range(2 * D, 4 * D))
    assert found.latent.log_deviation.max() == 7, "bounded, so that no deviation overflows"
    assert found.reward[0, 0].item() == 10.0 * 6 * D
    assert found.end.shape == (7, 1)
    assert found.end[0, 0].item() == 6 * D + 1


def test_losses_count_valid_steps_alone_and_rewards_of_steps_that_go_on() -> None:
    torch.manual_seed(1)
    data = sequence()
    model = MDNRNN(D, 3, hidden=6, mixtures=2)
    prediction = model.unroll(data)
    terms = losses(prediction, data)
    nll, reward, end = [], [], []
    for t in range(T):
        for b in range(B):
            if not data.valid[t, b]:
                continue
            mixture = type(prediction.latent)(*(p[t, b] for p in prediction.latent))
            nll.append(-log_prob(mixture, data.z[t + 1, b]).sum().item())
            share = torch.sigmoid(prediction.end[t, b]).item()
            end.append(-math.log(share if data.terminated[t, b] else 1 - share))
            if not data.terminated[t, b]:
                reward.append(((prediction.reward[t, b] - data.reward[t, b]) / 10).item() ** 2)
    assert terms.nll.item() == pytest.approx(np.mean(nll), rel=1e-5)
    assert terms.reward.item() == pytest.approx(np.mean(reward), rel=1e-5)
    assert terms.end.item() == pytest.approx(np.mean(end), rel=1e-5)
    wrong = data._replace(
        z=data.z.clone(), reward=torch.where(data.valid, data.reward, math.nan).nan_to_num(99.0)
    )
    assert losses(prediction, wrong).reward.item() == pytest.approx(np.mean(reward), rel=1e-5)


def test_it_learns_a_rule_that_needs_memory() -> None:
    """z_t+1 is the sum of the last two actions: a Gaussian of (z, a) alone cannot know it."""
    torch.manual_seed(0)
    learner = MemoryLearner(MDNRNN(1, 3, 24, 2), RNNSettings(lr=1e-2))
    for step in range(110):
        action = torch.randn(20, 32, 3, generator=torch.Generator().manual_seed(step))
        z = torch.zeros(21, 32, 1)
        z[2:, :, 0] = action[1:, :, 0] + action[:-1, :, 0]
        z[1, :, 0] = action[0, :, 0]
        z += 0.1 * torch.randn(z.shape)
        nothing = torch.zeros(20, 32)
        yes, no = nothing == 0, nothing == 1
        data = Sequence(z, action, 10 * action[..., 1], no, yes, no)
        log = learner.update(data, 1 - step / 110)
    stays = evaluate.linear(data).nll(data)
    assert float(log["train/nll"]) < float(stays) - 0.8
    assert float(log["train/reward_error"]) < 0.1


def test_persistence_and_linear_are_fitted_gaussians() -> None:
    data = sequence(steps=400, batch=5)
    z = data.z.clone()
    for t in range(400):  # a linear law with noise of deviation 0.5
        noise = 0.5 * torch.randn(5, D)
        z[t + 1] = 0.8 * z[t] + 0.3 * data.action[t, :, :1] - 0.7 + noise
    data = data._replace(z=z)
    law = evaluate.linear(data)
    torch.testing.assert_close(law.weight[:D], 0.8 * torch.eye(D), atol=0.06, rtol=0)
    torch.testing.assert_close(law.weight[D], torch.full((D,), 0.3), atol=0.06, rtol=0)
    torch.testing.assert_close(law.weight[-1], torch.full((D,), -0.7), atol=0.1, rtol=0)
    entropy = D * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.5))
    assert law.nll(data).item() == pytest.approx(entropy, abs=0.06)
    still = evaluate.persistence(data)
    change = (z[1:] - z[:-1])[data.valid]
    assert still.deviation.tolist() == pytest.approx(change.square().mean(dim=0).sqrt().tolist())
    expected = -torch.distributions.Normal(0, still.deviation).log_prob(change).sum(-1).mean()
    assert still.nll(data).item() == pytest.approx(expected.item(), rel=1e-5)
    assert still.nll(data) > law.nll(data)


def test_invalid_steps_do_not_fit_the_baselines() -> None:
    data = sequence(steps=60)
    wild = data.z.clone()
    wild[1:][~data.valid] += 100.0
    changed = data._replace(z=wild)
    # A changed frame is also the one that the next step starts from: leave that step out too.
    valid = data.valid.clone()
    valid[1:] &= data.valid[:-1]
    for fit in (evaluate.persistence, evaluate.linear):
        a = fit(data._replace(valid=valid)).nll(data._replace(valid=valid))
        b = fit(changed._replace(valid=valid)).nll(changed._replace(valid=valid))
        torch.testing.assert_close(a, b)


def test_model_metrics_and_the_beginnings_of_episodes() -> None:
    torch.manual_seed(0)

    def stream(seed: int) -> Latents:
        s = sequence(steps=30, batch=2, seed=seed)
        first = torch.zeros(30, 2, dtype=torch.bool)
        first[0] = True
        first[12, 0] = first[28, 1] = True
        valid = torch.ones(30, 2, dtype=torch.bool)
        valid[11, 0] = valid[27, 1] = False
        little = torch.full_like(s.z, -30.0)
        return Latents(s.z, little, s.action, s.reward, s.terminated, valid, first)

    parts = [stream(seed) for seed in range(3)]
    model = MDNRNN(D, 3, hidden=6, mixtures=2)
    metrics = evaluate.model_metrics(model, *parts)
    unseen = parts[2].whole(2)
    begins = evaluate.early(unseen)
    assert begins.nonzero().tolist() == [[12, 0], [13, 0], [14, 0], [28, 1], [29, 1]]
    prediction = model.unroll(unseen)
    nll = -log_prob(prediction.latent, unseen.z[1:]).sum(dim=-1)
    assert metrics["model_nll"] == pytest.approx(nll[unseen.valid].mean().item(), rel=1e-5)
    assert metrics["first_nll"] == pytest.approx(nll[begins].mean().item(), rel=1e-5)
    known = parts[0].whole(0)
    assert metrics["persistence_nll"] == pytest.approx(
        evaluate.persistence(known).nll(unseen).item()
    )
    worst = min(metrics["persistence_nll"], metrics["linear_nll"])
    assert metrics["nll_gain"] == pytest.approx(worst - metrics["model_nll"])
