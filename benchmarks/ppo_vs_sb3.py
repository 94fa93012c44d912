"""PPO of week 13 against Stable-Baselines3: seconds to solve CartPole-v1, by one rule for both.

    pip install -e ".[bench]"
    python benchmarks/ppo_vs_sb3.py

Every 4096 environment steps the week's own evaluation plays 100 greedy episodes; whoever's mean
return reaches the bar stops. Both have one thread, start with their networks and end with that
evaluation, whose time counts on both and is shown apart. The seeds are run in turns.

Stable-Baselines3 has its published settings, those of RL Baselines3 Zoo for CartPole-v1
(hyperparams/ppo.yml); the week has those of `+size=tiny`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from labkit.config.compose import compose
from reinforcement_learning import PPO, Environments, episode_returns
from reinforcement_learning.train import Config

ENV, BUDGET = "CartPole-v1", 100_000

ZOO = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda left: 0.001 * left,  # lin_0.001: `left` falls from 1 to 0
    "clip_range": lambda left: 0.2 * left,  # lin_0.2
}
ZOO_ENVS = 8


class Judge:
    """The stopping rule, and the clock."""

    def __init__(self, seed: int, bar: float, every: int) -> None:
        self.seed, self.bar, self.every = seed, bar, every
        self.envs = Environments(ENV, 100)
        self.evaluating, self.calls, self.solved = 0.0, 0, False
        self.began = time.perf_counter()

    def __call__(self, act: Callable[[np.ndarray], np.ndarray], env_steps: int) -> bool:
        """Whether to stop after `env_steps` steps with the greedy policy `act`."""
        if env_steps % self.every == 0:
            began = time.perf_counter()
            self.calls += 1
            score = episode_returns(act, self.envs, seed=(self.seed, self.calls)).mean()
            self.solved = bool(score >= self.bar)
            self.evaluating += time.perf_counter() - began
        return self.solved

    def verdict(self, env_steps: int) -> Outcome:
        return Outcome(time.perf_counter() - self.began, self.evaluating, env_steps, self.solved)


@dataclass
class Outcome:
    """What one seed of one side took."""

    seconds: float
    evaluating: float
    env_steps: int
    solved: bool

    def __str__(self) -> str:
        line = (
            f"{self.seconds:6.2f} s ({self.evaluating:4.2f} s evaluating) {self.env_steps:7d} steps"
        )
        return line if self.solved else f"{line} NOT SOLVED"


def ours(seed: int, bar: float, every: int) -> Outcome:
    """The loop of reinforcement_learning/train.py without its records and pictures."""
    request = compose(
        "reinforcement_learning", Config, ["+size=tiny", f"seed={seed}", f"env={ENV}"]
    )
    cfg: Any = request.config
    torch.manual_seed(seed)
    judge = Judge(seed, bar, every)
    envs = Environments(ENV, cfg.ppo.envs)
    agent = PPO(cfg.ppo, envs, cfg.gamma, cfg.hidden, torch.device("cpu"))
    envs.reset(seed=seed)
    env_steps = 0
    while env_steps < BUDGET:
        agent.update(agent.collect(envs))
        env_steps += cfg.ppo.envs * cfg.ppo.rollout
        if judge(agent.act, env_steps):
            break
    return judge.verdict(env_steps)


def theirs(seed: int, bar: float, every: int) -> Outcome:
    """Stable-Baselines3, its policy read out by the shortest way for the evaluation."""
    import stable_baselines3 as sb3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    judge = Judge(seed, bar, every)
    model: Any = sb3.PPO(
        "MlpPolicy", make_vec_env(ENV, ZOO_ENVS, seed), seed=seed, device="cpu", **ZOO
    )

    @torch.inference_mode()
    def act(obs: np.ndarray) -> np.ndarray:
        latent = model.policy.mlp_extractor.forward_actor(torch.from_numpy(obs))
        return model.policy.action_net(latent).argmax(-1).numpy()

    class Stop(BaseCallback):
        def _on_rollout_start(self) -> None:  # after the update that follows the rollout before
            self.stop = self.num_timesteps > 0 and judge(act, self.num_timesteps)

        def _on_step(self) -> bool:
            return not self.stop

    model.learn(BUDGET, callback=Stop())
    return judge.verdict(model.num_timesteps // ZOO_ENVS // 32 * ZOO_ENVS * 32)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--bar", type=float, default=475.0, help="mean return that counts as solved"
    )
    parser.add_argument(
        "--every", type=int, default=4096, help="environment steps between evaluations"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    try:
        import stable_baselines3 as sb3
    except ImportError:
        print(
            'Stable-Baselines3 is not installed. Type: pip install -e ".[bench]"', file=sys.stderr
        )
        return 2
    torch.set_num_threads(args.threads)
    rule = (args.bar, args.every)
    ours(1000, *rule), theirs(1000, *rule)  # warm up: lazy imports and first calls
    print(f"{ENV} to a mean return of {args.bar:g}, evaluated every {args.every} steps; ", end="")
    print(
        f"{args.threads} thread(s), torch {torch.__version__}, Stable-Baselines3 {sb3.__version__}"
    )
    sides: dict[str, list[Outcome]] = {"ours": [], "sb3": []}
    for seed in range(args.seeds):
        for name, side in (("ours", ours), ("sb3", theirs)):
            sides[name].append(side(seed, *rule))
            print(f"seed {seed}  {name:5} {sides[name][-1]}", flush=True)
    report(sides)
    return 0 if all(outcome.solved for outcome in sides["ours"]) else 1


def report(sides: dict[str, list[Outcome]]) -> None:
    """Medians of both sides, their ratio, and how far it varies from seed to seed."""
    for what in ("seconds", "evaluating", "env_steps"):
        values = {name: [float(getattr(o, what)) for o in side] for name, side in sides.items()}
        a, b = (statistics.median(values[name]) for name in ("ours", "sb3"))
        pairs = [y / x for x, y in zip(values["ours"], values["sb3"], strict=True)]
        print(
            f"{what:11} median: ours {a:.6g}, Stable-Baselines3 {b:.6g}; "
            f"ratio {b / a:.2f} (single seeds {min(pairs):.2f} to {max(pairs):.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
