"""PPO's view of the mini track: latents of two frames, five actions, exact state."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

from reinforcement_learning import PPOSettings
from world_models.model_free import CHOICES, LatentEnvironments, ModelFree
from world_models.track import MiniTrackVectorEnv
from world_models.vae import VAE


def environments(copies: int = 3) -> LatentEnvironments:
    torch.manual_seed(0)
    return LatentEnvironments(VAE(32, 4, 4), contextlib.nullcontext, copies, (0, 1))


def test_observations_are_latents_of_this_frame_and_the_one_before() -> None:
    envs, plain = environments(), MiniTrackVectorEnv(3, tracks=(0, 1))
    envs.reset(seed=3)
    frame, _ = plain.reset(seed=3)
    frames, ends = [frame, frame], 0
    rng = np.random.default_rng(0)
    for _ in range(230):
        for place, seen in enumerate((frames[-1], frames[-2])):
            x = torch.from_numpy(np.ascontiguousarray(seen))
            z = envs.vector.vision.encode(x)[0].detach().numpy()  # type: ignore[attr-defined]
            found = envs.obs[:, 4 * place : 4 * place + 4]
            np.testing.assert_allclose(found, z, atol=1e-4)
        choice = rng.integers(5, size=3)
        over = plain.over.copy()
        step = envs.step(choice)
        frame, reward, terminated, truncated, _ = plain.step(CHOICES[choice])
        np.testing.assert_allclose(step.reward, reward)
        assert (step.valid == ~over).all()
        ends += int((terminated | truncated).sum())
        before = np.where(over[:, None, None, None], frame, frames[-1])
        frames += [before, frame]
    assert ends >= 3
    assert envs.obs_dim == 8
    assert envs.num_actions == 5


def test_state_comes_back_to_the_last_bit() -> None:
    envs, other = environments(), environments()
    envs.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(30):
        envs.step(rng.integers(5, size=3))
    other.load_state_dict(envs.state_dict())
    for _ in range(220):  # past the time limit: restarts draw from the generator
        choice = rng.integers(5, size=3)
        for a, b in zip(envs.step(choice), other.step(choice), strict=True):
            assert a.tobytes() == b.tobytes()
    assert envs.finished == other.finished
    assert envs.finished


def test_ppo_counts_its_steps_and_plays_tracks_of_the_test() -> None:
    torch.manual_seed(0)
    settings = PPOSettings(envs=4, rollout=8, minibatches=2, epochs=1)
    learner = ModelFree(
        VAE(32, 4, 4), contextlib.nullcontext, settings, 0.99, 0, torch.device("cpu")
    )
    for round_ in range(3):
        log = learner.update(round_)
    assert learner.real_steps == 96
    assert torch.as_tensor(log["train/loss"]).isfinite()
    found = learner.returns(2, 2, test=True, seed=0)
    assert found.shape == (4,)
    assert (found == learner.returns(2, 2, test=True, seed=0)).all()
