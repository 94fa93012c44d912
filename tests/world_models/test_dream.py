"""C and its dream: against loops over single candidates, and in a world whose returns are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labkit import RunFailed
from world_models import controller, figures, report
from world_models.dream import Features, dream_return, dreamed
from world_models.play import Driver, episode_returns, repeated_returns
from world_models.rnn import MDNRNN, Prediction, reset_state
from world_models.search import DreamJudge, Search, TrackJudge
from world_models.settings import SearchSettings
from world_models.track import MiniTrackVectorEnv
from world_models.vae import VAE

CPU = torch.device("cpu")


@pytest.mark.exercise("dream.dream_return")
@pytest.mark.parametrize("shape", [(6, 4, 3), (1, 2), (9, 1)])
def test_a_dream_pays_until_it_ends(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(len(shape))
    reward = torch.randn(shape, generator=generator)
    ended = torch.rand(shape, generator=generator) < 0.25
    kept = reward.clone(), ended.clone()
    found = dream_return(reward, ended)
    assert found.shape == shape[1:]
    for place in np.ndindex(shape[1:]):
        total = 0.0
        for t in range(shape[0]):
            if ended[t][place]:
                break
            total += reward[t][place].item()
        assert found[place].item() == pytest.approx(total, abs=1e-5)
    assert torch.equal(kept[0], reward)
    assert torch.equal(kept[1], ended)


@pytest.mark.exercise("dream.dream_return")
def test_ends_by_hand() -> None:
    reward = torch.tensor([[1.0, 1.0, 1.0], [10.0, 10.0, 10.0], [100.0, 100.0, 100.0]])
    ended = torch.zeros(3, 3, dtype=torch.bool)
    ended[0, 1] = ended[2, 1] = ended[1, 2] = True
    assert dream_return(reward, ended).tolist() == [111.0, 0.0, 1.0]
    assert dream_return(reward[:0], ended[:0]).tolist() == [0.0, 0.0, 0.0]
    assert dream_return(reward.double(), ended).dtype == torch.float64


@pytest.mark.exercise("dream.dream_return")
def test_what_follows_an_end_is_not_counted_even_if_it_is_no_number() -> None:
    reward = torch.tensor([[1.0], [2.0], [math.nan], [math.inf]])
    ended = torch.tensor([[False], [True], [False], [False]])
    assert dream_return(reward, ended).tolist() == [1.0]


def test_a_population_acts_as_its_members_do_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    P, E, F = 4, 3, 5
    parameters = torch.randn(P, controller.parameter_count(F), generator=generator)
    features = torch.randn(P, E, F, generator=generator)
    found = controller.act(parameters, features)
    assert found.shape == (P, E, 3)
    for p in range(P):
        matrix = parameters[p].view(3, F + 1)
        for e in range(E):
            steer, gas, brake = (matrix[:, :F] @ features[p, e] + matrix[:, F]).tanh().tolist()
            expected = [steer, (gas + 1) / 2, max(brake, 0)]
            assert found[p, e].tolist() == pytest.approx(expected, abs=1e-6)
    still = controller.act(torch.zeros(1, controller.parameter_count(F)), features[:1])
    assert still[0, 0].tolist() == [0.0, 0.5, 0.0]


@pytest.mark.parametrize("kind", ["v", "v_random", "v_m"])
def test_candidates_dream_alone_as_in_a_population(kind: str) -> None:
    torch.manual_seed(0)
    model, other = MDNRNN(4, 3, 6, 2), MDNRNN(4, 3, 5, 2)
    model.head.bias.data[-1] = -4.0  # ends are rare
    features = Features(4, {"v": None, "v_random": other, "v_m": model}[kind])
    assert features.count == {"v": 4, "v_random": 9, "v_m": 10}[kind]
    parameters = torch.randn(3, controller.parameter_count(features.count))
    starts = torch.randn(5, 4)

    def dream(some: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return dreamed(model, features, some, starts, 12, 0.8, generator)

    found = dream(parameters)
    assert found.shape == (3, 5)
    for p in range(3):
        torch.testing.assert_close(dream(parameters[p : p + 1])[0], found[p], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found[0], found[1])


class Steered(MDNRNN):
    """A world with nothing to see in it, where steering to the left pays and gas may kill."""

    def __init__(self, danger: float) -> None:
        super().__init__(2, 3, 3, 1)
        self.danger = danger

    def step(self, z: Tensor, action: Tensor, state: Any) -> Any:
        return action, state[1]

    def predict(self, hidden: Tensor) -> Prediction:
        steer, gas, _ = hidden.unbind(dim=-1)
        mixture = super().predict(torch.zeros_like(hidden)).latent
        return Prediction(mixture, -steer, torch.full_like(gas, self.danger))


def test_returns_of_a_dream_are_rewards_and_ends_as_predicted() -> None:
    features = Features(2, None)
    parameters = torch.zeros(2, 9)
    parameters[0, 2], parameters[1, 2] = -0.5, 1.0  # the bias of steering
    starts = torch.zeros(400, 2)
    generator = torch.Generator().manual_seed(0)
    found = dreamed(Steered(-50.0), features, parameters, starts, 7, 1.0, generator)
    torch.testing.assert_close(found[0], torch.full((400,), 7 * math.tanh(0.5)))
    torch.testing.assert_close(found[1], torch.full((400,), -7 * math.tanh(1.0)))
    odds = -1.0  # each step survives with probability 1 - sigmoid(-1)
    found = dreamed(Steered(odds), features, parameters[:1], starts, 7, 1.0, generator)
    survive = 1 / (1 + math.exp(odds))
    expected = math.tanh(0.5) * sum(survive**t for t in range(1, 8))
    assert found.mean().item() == pytest.approx(expected, rel=0.08)
    assert dreamed(Steered(50.0), features, parameters, starts, 7, 1.0, generator).max() == 0


def search(danger: float = -50.0) -> Search:
    settings = SearchSettings(population=8, episodes=2, horizon=5, sigma=0.5)
    features = Features(2, None)
    judge = DreamJudge(Steered(danger), features, lambda: torch.randn(9, 2), settings, 0)
    return Search("lab/MiniTrack-v0", drive, features.count, settings, judge, 0, CPU)


def test_the_search_finds_what_pays() -> None:
    found = search()
    logs = [found.update(generation) for generation in range(25)]
    assert logs[0]["search/mean"] < 3.0
    assert logs[-1]["search/mean"] > 4.5, "5 is the most: full left in all steps"
    assert found.best.shape == (1, 9)
    assert found.real_steps == 0


def test_a_return_that_is_no_number_ends_the_run() -> None:
    found = search(math.nan)
    found.judge.model.predict = lambda hidden: Prediction(  # type: ignore[attr-defined]
        MDNRNN(2, 3, 3, 1).predict(hidden).latent, hidden[..., 0] * math.nan, hidden[..., 0] - 50
    )
    with pytest.raises(RunFailed, match="generation 3 has no finite return"):
        found.update(3)


def drive(parameters: Tensor, episodes: int, watcher: MDNRNN | None = None) -> Driver:
    import contextlib

    torch.manual_seed(4)
    return Driver(VAE(32, 4, 4), Features(4, watcher), contextlib.nullcontext, parameters, episodes)


def test_a_driver_sees_acts_and_remembers() -> None:
    torch.manual_seed(1)
    watcher = MDNRNN(4, 3, 5, 2)
    parameters = torch.randn(2, controller.parameter_count(9))
    many = drive(parameters, 3, watcher)
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 32, 32, 3)).astype(np.uint8)
    found = [many(frame) for frame in frames]
    assert found[0].shape == (6, 3)
    for row in range(6):
        state = watcher.blank(1)
        for t in range(4):
            z = many.vision.encode(torch.from_numpy(frames[t, row : row + 1]))[0]
            features = torch.cat([z, state[0]], dim=-1)[None]
            action = controller.act(parameters[row // 3][None], features)[0]
            np.testing.assert_allclose(found[t][row], action[0].detach(), atol=1e-5)
            state = reset_state(watcher.step(z, action, state), torch.tensor([False]))


class Clockwork:
    """Copy i ends after i + 1 steps, each of which pays its action's gas."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.t = np.zeros(self.num_envs, int)
        return self.t[:, None], {}

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        self.t += 1
        over = self.t == np.arange(self.num_envs) + 1
        even = np.arange(self.num_envs) % 2 == 0
        return self.t[:, None], action[:, 1], over & even, over & ~even, {}


def test_only_the_first_episode_of_each_copy_counts() -> None:
    env: Any = Clockwork(4)
    returns, steps = episode_returns(lambda frame: np.full((4, 3), 2.0), env, seed=0)
    assert returns.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert steps == 10
    twice = repeated_returns(lambda: lambda frame: np.ones((4, 3)), env, 2, seed=0)
    assert twice.tolist() == [1.0, 2.0, 3.0, 4.0] * 2


def test_candidates_are_judged_on_the_track_each_in_its_own_copies() -> None:
    settings = SearchSettings(population=4, episodes=2)
    judge = TrackJudge(drive, "lab/MiniTrack-v0", settings, 0)
    assert judge.env.num_envs == 8
    judge.env = MiniTrackVectorEnv(8, max_episode_steps=30)
    parameters = torch.zeros(4, 15)
    parameters[1, 9] = -20.0  # the bias of gas: this one stands still
    parameters[3, 9] = 20.0  # and this one drives at full gas
    returns = judge(parameters, 0)
    assert returns[1] == pytest.approx(-3.0), "30 frames at -0.1"
    assert returns[1] < returns[0]
    assert returns[1] < returns[3]
    assert judge.books["real_steps"] >= 30


def test_the_film_shows_reality_v_and_dream_side_by_side() -> None:
    watcher = MDNRNN(4, 3, 5, 2)
    parameters = torch.zeros(1, 30)
    driver = drive(parameters, 1, watcher)
    films = report.film(driver, watcher, "lab/MiniTrack-v0", 1.0, seed=3)
    assert all(f.shape == films[0].shape and f.dtype == np.uint8 for f in films)
    assert (films[1][: report.WARM_UP] == films[2][: report.WARM_UP]).all()
    assert (films[1][report.WARM_UP + 1 :] != films[2][report.WARM_UP + 1 :]).any()
    frames = figures.beside(*films, scale=2)
    assert frames[0].shape == (64, 2 * (3 * 32 + 2 * figures.GAP), 3)
    assert (frames[5][::2, :64:2] == films[0][5]).all()
    rows = figures.moments(*films)
    assert rows.shape == (3 * figures.MOMENTS, 32, 32, 3)
    assert (rows[figures.MOMENTS - 1] == films[0][-1]).all()
