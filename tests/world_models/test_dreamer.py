"""Dreamer: lambda-returns by brute force, the KL against torch.distributions, the model's books."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Normal, kl_divergence

from world_models.dreamer import Dreamer, Memory, Pilot
from world_models.imagination import Actor, ActorCritic, imagine, lambda_returns
from world_models.rollouts import Rollouts
from world_models.rssm import RSSM, Belief, Experience, balanced_kl, centred, straight_through
from world_models.settings import DreamerSettings
from world_models.track import MiniTrackVectorEnv
from world_models.vae import VAE

SMALL = DreamerSettings(
    rounds=2, envs=2, drive=30, pretrain=2, updates=2, batch=4, length=8, starts=10, horizon=4,
    width=4, hidden=8, groups=3, classes=5, error_weight=3.0, beta=0.2,
)  # fmt: skip


SHAPE = (32, 32, 3)


def trip(steps: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(steps, batch, generator=generator)
    value = torch.randn(steps + 1, batch, generator=generator)
    discount = 0.9 * (torch.rand(steps, batch, generator=generator) > 0.15)
    return reward, value, discount


@pytest.mark.exercise("imagination.lambda_returns")
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(("steps", "batch"), [(6, 4), (1, 3), (5, 1)])
def test_lambda_returns_are_a_weighted_sum_of_n_step_returns(
    lam: float, steps: int, batch: int
) -> None:
    """Sutton and Barto, equation 12.3: weights (1 - lam) lam^(n-1), the rest on the longest."""
    reward, value, discount = trip(steps, batch)
    kept = [x.clone() for x in (reward, value, discount)]
    found = lambda_returns(reward, value, discount, lam)
    assert found.shape == (steps, batch)
    for b in range(batch):
        for t in range(steps):
            total, paid, weight = 0.0, 0.0, 1.0
            for n in range(1, steps - t + 1):
                paid += weight * reward[t + n - 1, b].item()
                weight *= discount[t + n - 1, b].item()
                longest = n == steps - t
                share = lam ** (n - 1) * (1 if longest else 1 - lam)
                total += share * (paid + weight * value[t + n, b].item())
            assert found[t, b].item() == pytest.approx(total, abs=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(kept, (reward, value, discount), strict=True))


@pytest.mark.exercise("imagination.lambda_returns")
def test_an_end_cuts_the_future_off() -> None:
    reward = torch.tensor([[1.0], [10.0], [100.0]])
    value = torch.tensor([[0.0], [5.0], [7.0], [9.0]])
    discount = torch.tensor([[0.5], [0.0], [0.5]])
    found = lambda_returns(reward, value, discount, 0.5)
    assert found.flatten().tolist() == [1 + 0.5 * (2.5 + 5), 10.0, 104.5]


@pytest.mark.exercise("imagination.lambda_returns")
def test_lambda_returns_have_gradients_and_a_type() -> None:
    parts = [x.double().requires_grad_() for x in trip(4, 2)]
    assert torch.autograd.gradcheck(lambda r, v, d: lambda_returns(r, v, d, 0.8), tuple(parts))
    assert lambda_returns(*parts, 0.8).dtype == torch.float64


@pytest.mark.exercise("rssm.balanced_kl")
@pytest.mark.parametrize("balance", [0.8, 0.0, 1.0, 0.3])
def test_the_kl_is_torchs_and_its_gradient_is_shared_out(balance: float) -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    p = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    plain = kl_divergence(Categorical(logits=q), Categorical(logits=p)).sum(dim=-1)
    found = balanced_kl(q, p, balance)
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, plain)
    whole = torch.autograd.grad(plain.sum(), (q, p))
    shares = torch.autograd.grad(found.sum(), (q, p))
    torch.testing.assert_close(shares[0], (1 - balance) * whole[0])  # the posterior moves slowly
    torch.testing.assert_close(shares[1], balance * whole[1])


@pytest.mark.exercise("rssm.balanced_kl")
def test_the_kl_of_sure_distributions_is_finite_and_ignores_a_shift() -> None:
    q = torch.tensor([[[200.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    p = torch.tensor([[[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
    assert balanced_kl(q, p, 0.8).tolist() == pytest.approx([np.log(3)], abs=1e-5)
    assert balanced_kl(p, q, 0.8).item() == pytest.approx(200 * 2 / 3 - np.log(3), rel=1e-5)
    kept = q.clone()
    torch.testing.assert_close(balanced_kl(q + 40, p - 3, 0.8), balanced_kl(q, p, 0.8))
    assert torch.equal(kept, q)


@pytest.mark.exercise("rssm.straight_through")
def test_draws_are_one_hot_and_as_frequent_as_they_should_be() -> None:
    logits = torch.tensor([[0.0, 1.0, -2.0], [3.0, 3.0, 0.0]]).expand(100_000, 2, 3)
    uniform = torch.rand(100_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = straight_through(logits, uniform)
    assert ((drawn == 0) | (drawn == 1)).all()
    assert (drawn.sum(dim=-1) == 1).all()
    torch.testing.assert_close(drawn.mean(dim=0), logits[0].softmax(dim=-1), atol=0.006, rtol=0)


@pytest.mark.exercise("rssm.straight_through")
def test_the_given_number_chooses_the_class() -> None:
    logits = torch.tensor([0.5, 0.2, 0.3]).log().expand(6, 3)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.69, 0.71, 0.9999])
    kept = uniform.clone()
    chosen = straight_through(logits, uniform).argmax(dim=-1)
    assert chosen.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(kept, uniform)
    many = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0))
    drawn = straight_through(many, torch.full((4000,), 1 - 2**-24))
    assert (drawn.sum(dim=-1) == 1).all(), "where rounding leaves none, the last one"
    assert straight_through(logits[0].double(), uniform[3]).dtype == torch.float64
    assert straight_through(logits[0], uniform[3].double()).dtype == torch.float32
    border = straight_through(torch.zeros(2, 2), torch.tensor([0.5, 0.0]))
    assert border.tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.exercise("rssm.straight_through")
def test_gradients_are_those_of_the_probabilities() -> None:
    logits = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 2, 5, dtype=torch.float64)
    uniform = torch.rand(4, 2, dtype=torch.float64)
    (found,) = torch.autograd.grad((weight * straight_through(logits, uniform)).sum(), logits)
    (wanted,) = torch.autograd.grad((weight * logits.softmax(dim=-1)).sum(), logits)
    torch.testing.assert_close(found, wanted)


def streams(steps: int = 40, copies: int = 3, seed: int = 0) -> Rollouts:
    rng = np.random.default_rng(seed)
    shape = (steps, copies)
    valid = rng.random(shape) > 0.1
    return Rollouts(
        rng.integers(0, 256, (steps + 1, copies, 32, 32, 3)).astype(np.uint8),
        rng.random((*shape, 3)).astype(np.float32), rng.normal(size=shape).astype(np.float32),
        rng.random(shape) < 0.1, valid,
    )  # fmt: skip


def experience() -> Experience:
    return Memory(streams, 5).windows(4, 8, np.random.default_rng(0), torch.device("cpu"))


def test_an_episode_begins_as_if_nothing_had_been() -> None:
    torch.manual_seed(0)
    model = RSSM(SHAPE, SMALL)
    before = Belief(torch.randn(2, 8), F.one_hot(torch.randint(5, (2, 3)), 5).float())
    embedded, action = torch.randn(2, 8), torch.randn(2, 3)
    first = torch.tensor([False, True])
    torch.manual_seed(1)
    seen = model.see(before, action, embedded, first)
    torch.manual_seed(1)
    blank = model.see(model.blank(2), torch.zeros(2, 3), embedded, torch.tensor([False, False]))
    torch.testing.assert_close(seen.belief.hidden[1], blank.belief.hidden[1])
    torch.testing.assert_close(seen.posterior[1], blank.posterior[1])
    assert not torch.allclose(seen.belief.hidden[0], blank.belief.hidden[0])
    torch.testing.assert_close(seen.prior[0], model.forward_step(before, action)[1][0])


def test_rewards_belong_to_the_state_they_led_to() -> None:
    torch.manual_seed(0)
    model, data = RSSM(SHAPE, SMALL), experience()
    torch.manual_seed(2)
    terms, beliefs = model.loss(data)
    assert beliefs.hidden.shape == (9, 4, 8)
    reward, goes_on = model.rewards(beliefs.features[1:])
    errors = [
        (reward[t, b].item() - data.reward[t, b].item() / 10) ** 2
        for t in range(8) for b in range(4) if data.valid[t, b] and not data.terminated[t, b]
    ]  # fmt: skip
    assert terms["reward"].item() == pytest.approx(np.mean(errors), rel=1e-4)
    ends = [
        -np.log(goes_on[t, b].item() if not data.terminated[t, b] else 1 - goes_on[t, b].item())
        for t in range(8) for b in range(4) if data.valid[t, b]
    ]  # fmt: skip
    assert terms["end"].item() == pytest.approx(sum(ends) / 32, rel=1e-4)
    whole = 3 * terms["picture"] + terms["reward"] + terms["end"] + 0.2 * terms["kl"]
    torch.testing.assert_close(terms["loss"], whole)


def test_the_actor_learns_through_the_model_and_the_critic_from_returns() -> None:
    torch.manual_seed(0)
    model, parts = RSSM(SHAPE, SMALL), ActorCritic(8 + 15, 8)
    assert all(
        torch.equal(a, b)
        for a, b in zip(parts.critic.parameters(), parts.slow_critic.parameters(), strict=True)
    )
    found = imagine(model, parts.actor, model.blank(6), 4, gamma=0.9)
    assert found.features.shape == (5, 6, 23)
    assert found.reward.shape == found.discount.shape == found.entropy.shape == (4, 6)
    assert (found.discount < 0.9).all()
    actor, critic = parts.losses(found, 0.95, 0.0)
    grads = torch.autograd.grad(actor, list(parts.actor.parameters()), retain_graph=True)
    assert any(g.abs().max() > 0 for g in grads)
    with torch.no_grad():
        value = parts.slow_critic(found.features).squeeze(-1)
        returns = lambda_returns(found.reward, value, found.discount, 0.95)
        weight, total, guess = torch.ones(6), 0.0, parts.critic(found.features).squeeze(-1)
        squares = 0.0
        for t in range(4):
            total += (weight * returns[t]).sum().item() / 24
            squares += (weight * (guess[t] - returns[t]).square()).sum().item() / 48
            weight = weight * found.discount[t]
    assert actor.item() == pytest.approx(-total, rel=1e-4)
    assert critic.item() == pytest.approx(squares, rel=1e-4)


def test_memory_hands_out_whole_windows_and_forgets_the_oldest() -> None:
    memory = Memory(streams, 2)
    for i in range(3):
        piece = streams(seed=i + 1)
        piece.reward[:] = np.arange(40)[:, None] + 1000 * (i + 1)
        memory.add(piece)
    assert len(memory.pieces) == 2
    data = memory.windows(20, 8, np.random.default_rng(0), torch.device("cpu"))
    assert data.frame.shape == (9, 20, 32, 32, 3)
    assert data.action.shape == (8, 20, 3)
    own = data.reward[0] > 500
    assert own.tolist() == [b % 2 == 0 for b in range(20)]
    steps = data.reward[1:, own] - data.reward[:-1, own]
    assert (steps == 1).all()
    assert data.reward[:, own].min() > 1999, "the oldest is gone"


def test_a_pilot_begins_anew_where_it_is_told_to() -> None:
    torch.manual_seed(0)
    model, parts = RSSM(SHAPE, SMALL), ActorCritic(23, 8)
    pilot = Pilot(np.ascontiguousarray, model, parts, 2, greedy=True)
    frames = streams(5, 2).frame
    pilot(frames[0])
    pilot(frames[1])
    pilot.restart(np.array([True, False]))
    torch.manual_seed(3)
    pilot(frames[2])
    fresh = Pilot(np.ascontiguousarray, model, parts, 2, greedy=True)
    torch.manual_seed(3)
    fresh(frames[2])
    torch.testing.assert_close(pilot.belief.hidden[0], fresh.belief.hidden[0])
    assert not torch.allclose(pilot.belief.hidden[1], fresh.belief.hidden[1])


def test_a_round_drives_remembers_and_learns() -> None:
    torch.manual_seed(0)
    rollouts = streams()
    learner = Dreamer(
        rollouts, VAE(32, 4, 4), "lab/MiniTrack-v0", SMALL, 0.95, 0, torch.device("cpu"),
        contextlib.nullcontext,
    )  # fmt: skip
    before = [p.clone() for m in (learner.model, learner.parts) for p in m.parameters()]
    acting = [p.clone() for p in learner.parts.parameters()]
    learner.update(0)
    assert learner.real_steps == 0, "the first round has the rollouts alone"
    assert all(torch.equal(a, b) for a, b in zip(acting, learner.parts.parameters(), strict=True))
    log = learner.update(1)
    assert learner.real_steps == 60
    assert len(learner.memory.pieces) == 1
    assert all(torch.as_tensor(value).isfinite() for value in log.values())
    piece = learner.memory.pieces[0]
    assert log["train/driven"] == pytest.approx(piece["reward"][piece["valid"]].mean(), rel=1e-5)
    after = [p for m in (learner.model, learner.parts) for p in m.parameters()]
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.9
    assert all(p.requires_grad for p in learner.model.parameters())
    assert learner.returns(2, 1, test=True, seed=0).shape == (2,)


def test_the_actor_cannot_leave_its_bounds() -> None:
    """However sure it is, the squashing has a gradient; however unsure, the entropy has an end."""
    torch.manual_seed(0)
    actor = Actor(6, 8)
    last = actor.net[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    widest, narrowest = (3 * Normal(0.0, s).entropy().item() for s in (1.0, 0.05))
    for spread, entropy in ((50.0, widest), (-50.0, narrowest)):
        last.bias.data = torch.tensor([50.0, 50.0, -50.0, spread, spread, spread])
        action, found = actor(torch.randn(4, 6), greedy=True)
        steer = float(np.tanh(1.5))
        wanted = torch.tensor([[steer, (1 + steer) / 2, 0.0]] * 4)
        torch.testing.assert_close(action, wanted)
        torch.testing.assert_close(found, torch.full((4,), entropy), atol=1e-4, rtol=0)
    last.bias.data = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    raw = actor(torch.zeros(40_000, 6))[0][:, 0].atanh()
    assert raw.std().item() == pytest.approx(0.525, abs=0.01), "half way between the bounds"
    assert raw.mean().item() == pytest.approx(1.5 * np.tanh(1 / 3), abs=0.01)


def test_an_encoder_that_has_learned_nothing_tells_frames_apart() -> None:
    """A tenth of the embedding's spread, at least, is between frames: it was 0.04 with PyTorch's
    own initialisation and frames from 0 to 1, and 0.004 after 50 updates.
    """
    env = MiniTrackVectorEnv(64)
    frames = torch.from_numpy(np.ascontiguousarray(env.reset(seed=0)[0]))
    for seed in range(3):
        torch.manual_seed(seed)
        settings = dataclasses.replace(SMALL, width=16, hidden=128)
        with torch.no_grad():
            embedded = RSSM(SHAPE, settings).embed(frames)
        assert embedded.std(dim=0).mean() > 0.15 * embedded.std()


def test_frames_are_centred_and_vectors_are_left_alone() -> None:
    frames = torch.zeros(2, 4, 8, 3, dtype=torch.uint8)
    frames[1, 2, 5, 0] = 255
    found = centred(frames)
    assert found.shape == (2, 3, 4, 8)
    assert found[1, 0, 2, 5] == 0.5
    assert (found == -0.5).sum() == found.numel() - 1
    vectors = torch.randn(3, 4)
    assert torch.equal(centred(vectors), vectors)


def test_v_may_see_for_it() -> None:
    """Memory, model and pilot get the means of V's latents, of V as it is when it is needed."""
    torch.manual_seed(0)
    rollouts, vision = streams(), VAE(32, 5, 4)
    learner = Dreamer(
        rollouts, vision, "lab/MiniTrack-v0", dataclasses.replace(SMALL, sees="latents"), 0.95, 0,
        torch.device("cpu"), contextlib.nullcontext,
    )  # fmt: skip
    with torch.no_grad():  # V learns after the learner was made
        for p in vision.parameters():
            p.add_(0.01)
        wanted = vision.encode(torch.from_numpy(rollouts.frame[:, 1]))[0]
    torch.testing.assert_close(torch.from_numpy(learner.memory.rollouts().frame[:, 1]), wanted)
    learner.update(0)
    learner.update(1)
    assert learner.memory.pieces[0]["frame"].shape == (31, 2, 5)
    data = learner.memory.windows(4, 8, np.random.default_rng(0), torch.device("cpu"))
    torch.manual_seed(3)
    terms, beliefs = learner.model.loss(data)
    error = (learner.model.decoder(beliefs.features) - data.frame).square().sum() / (9 * 4)
    torch.testing.assert_close(terms["picture"], error)
    assert learner.returns(2, 1, test=True, seed=0).shape == (2,)
