"""Learn to act: tabular Q-learning, DQN, REINFORCE or PPO, all in the loop below.

    python -m reinforcement_learning.train +size=tiny                           PPO on CartPole-v1
    python -m reinforcement_learning.train +size=tiny algo=q_learning env=FrozenLake-v1

An algorithm is an object with `collect(envs)` (act, return the experience), `update(batch)` (learn
from it), `act(obs)` (greedily), `policy` (what is saved) and `tracked` (what resume needs): the
`Agent` of agent.py.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveInt
from reinforcement_learning.settings import DQNSettings, PPOSettings, QSettings, ReinforceSettings

if TYPE_CHECKING:
    import torch

    from reinforcement_learning.agent import Agent
    from reinforcement_learning.envs import Environments


@dataclass
class Config(LabConfig):
    """Week 13: reinforcement learning, from a table of values to PPO."""

    device: str = "cpu"
    """Networks this small are faster on the CPU than on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """The week computes in fp32."""
    algo: Literal["q_learning", "dqn", "reinforce", "ppo"] = "ppo"
    """The algorithm; the settings of the other algorithms have no effect."""
    env: str = "LunarLander-v3"
    """A gymnasium environment with discrete actions."""
    gamma: Annotated[float, Bounds(above=0, below=1)] = 0.999
    """Discount of future rewards."""
    hidden: PositiveInt = 64
    """Units in each of the two hidden layers."""
    evaluations: PositiveInt = 50
    """Evaluations during training, evenly spaced."""
    eval_episodes: PositiveInt = 100
    """Greedy episodes in each evaluation."""
    target_return: float | None = 240.0
    """Stop when an evaluation's mean return reaches this; null: use the whole budget."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Settings of algo=ppo."""
    reinforce: ReinforceSettings = field(default_factory=ReinforceSettings)
    """Settings of algo=reinforce."""
    dqn: DQNSettings = field(default_factory=DQNSettings)
    """Settings of algo=dqn."""
    q: QSettings = field(default_factory=QSettings)
    """Settings of algo=q_learning."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "bf16":
            raise UsageError("this week computes in fp32 only: leave precision= out")
        envs, rollout = self.ppo.envs, self.ppo.rollout
        if self.algo == "ppo" and envs * (rollout // 2) < 2:
            # One of two consecutive steps may be a reset, not a transition; and advantages are
            # divided by their standard deviation.
            raise UsageError(
                "a rollout of PPO needs at least two transitions: ppo.rollout=2 or more, and "
                f"4 with ppo.envs=1; got ppo.envs={envs} ppo.rollout={rollout}"
            )
        chosen = self.chosen
        if not isinstance(chosen, ReinforceSettings) and chosen.rounds < 1:
            raise UsageError(f"{chosen.steps} steps are less than one round of {self.algo}")

    @property
    def chosen(self) -> PPOSettings | ReinforceSettings | DQNSettings | QSettings:
        """The settings of the algorithm that `algo=` names."""
        return getattr(self, self.algo.removesuffix("_learning"))


def make_agent(cfg: Config, envs: "Environments", device: "torch.device") -> "Agent[Any]":
    """The algorithm that `algo=` names."""
    from reinforcement_learning.dqn import DQN
    from reinforcement_learning.ppo import PPO
    from reinforcement_learning.q_learning import QLearning
    from reinforcement_learning.reinforce import Reinforce

    if cfg.algo == "ppo":
        return PPO(cfg.ppo, envs, cfg.gamma, cfg.hidden, device)
    if cfg.algo == "reinforce":
        return Reinforce(cfg.reinforce, envs, cfg.gamma, cfg.hidden, device)
    if cfg.algo == "dqn":
        return DQN(cfg.dqn, envs, cfg.gamma, cfg.hidden, device, cfg.seed)
    return QLearning(cfg.q, envs, cfg.gamma, cfg.seed)


@lab("reinforcement_learning", Config, needs_gpu=False)
def train(cfg: Config, run: Run) -> None:
    """Act, learn, measure; keep the best policy."""
    import copy

    import numpy as np
    import torch

    from reinforcement_learning.envs import Environments
    from reinforcement_learning.evaluate import episode_returns
    from reinforcement_learning.figures import film
    from reinforcement_learning.report import report

    torch.set_num_threads(1)  # on matrices this small a second thread costs more than it brings
    run.environment(cfg.env)
    envs = Environments(cfg.env, cfg.chosen.envs)
    test_envs = Environments(cfg.env, cfg.eval_episodes)
    agent = make_agent(cfg, envs, run.device)
    envs.reset(seed=cfg.seed)
    best: dict[str, Any] = {"return": -np.inf, "policy": {}}
    run.track(envs=envs, best=best, **agent.tracked)

    rounds = cfg.chosen.rounds
    for step in run.steps(rounds):
        batch = agent.collect(envs)
        losses = agent.update(batch)
        if step % max(1, rounds // cfg.evaluations) == 0 or step == rounds - 1:
            score = episode_returns(agent.act, test_envs, (cfg.seed, step + 1)).mean().item()
            if score >= best["return"]:
                best |= {"return": score, "policy": copy.deepcopy(agent.policy.state_dict())}
            played = envs.take_finished()
            recent = {"train/return": np.mean(played)} if played else {}
            run.log({"eval/return": score, **recent, **losses}, envs.env_steps)
            if cfg.target_return is not None and score >= cfg.target_return:
                run.stop()
    run.save()

    result, figures = report(agent, best["policy"], test_envs, cfg.gamma, cfg.seed)
    for name, figure in figures.items():
        run.figure(name, figure)
    run.plot("returns", "eval/return", *(["train/return"] if envs.episodes else []))
    run.gif("episode", *film(agent.act, cfg.env, cfg.seed))
    run.result({**result, "env_steps": envs.env_steps})


if __name__ == "__main__":
    train()
