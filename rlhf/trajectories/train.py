"""Learn a behaviour from comparisons of trajectories, without its reward ever being written down.

    python -m rlhf.trajectories.train +size=tiny                     CartPole at x = -1
    python -m rlhf.trajectories.train +size=tiny behaviour=rock      driving to and fro
    python -m rlhf.trajectories.train +size=tiny reward=hidden       PPO told the hidden reward
    python -m rlhf.trajectories.train +size=tiny reward=environment  CartPole's own reward

Three things happen in turn (Christiano et al. 2017, section 2.2): the policy acts and is improved
by week 13's PPO on the learned reward; pairs of segments are shown to a judge; the reward model is
fitted to all comparisons so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveFloat, PositiveInt, Share
from reinforcement_learning import PPOSettings


@dataclass
class Config(LabConfig):
    """Week 16: a reward from comparisons of trajectories."""

    device: str = "cpu"
    """Networks this small are faster on the CPU than on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """This part computes in fp32."""
    env: str = "CartPole-v1"
    """A gymnasium environment; the behaviours are about CartPole."""
    behaviour: str = "left"
    """What the judge likes: left, rock, or module:function of your own."""
    reward: Literal["learned", "hidden", "environment"] = "learned"
    """What PPO is paid: the learned reward, the hidden one itself, or the environment's own."""
    gamma: Annotated[float, Bounds(above=0, below=1)] = 0.99
    """Discount of future rewards."""
    hidden: PositiveInt = 64
    """Units of a hidden layer: policy, critic and reward model."""
    members: Annotated[int, Bounds(least=2)] = 3
    """Networks of the reward model: two or more, since they must be able to disagree."""
    segment: Annotated[int, Bounds(least=2)] = 15
    """Steps of a segment."""
    comparisons: PositiveInt = 1000
    """Questions to the judge in all."""
    first: Share = 0.25
    """Share of them that is asked before the policy changes."""
    candidates: PositiveInt = 5
    """The most disputed of so many times as many random pairs are asked about; 1: any pair."""
    mistakes: Share = 0.1
    """Probability that the judge tosses a coin; the model assumes as much."""
    every: PositiveInt = 2
    """Rounds of PPO between two rounds of questions."""
    updates: PositiveInt = 50
    """Steps of the reward model after each round of questions; ten times as many at first."""
    batch_size: PositiveInt = 64
    """Comparisons in a step of each network of the reward model."""
    reward_lr: PositiveFloat = 1e-3
    """Learning rate of the reward model."""
    weight_decay: Share = 0.01
    """Weight decay of the reward model, against overfitting (section 2.2.3)."""
    evaluations: PositiveInt = 20
    """Measurements of the hidden return during training, evenly spaced."""
    eval_episodes: PositiveInt = 50
    """Greedy episodes of a measurement."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Week 13's PPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision == "bf16":
            raise UsageError("this part computes in fp32 only: leave precision= out")
        if self.ppo.rollout < self.segment:
            raise UsageError(
                f"a rollout of {self.ppo.rollout} steps has no segment of {self.segment}; type "
                f"ppo.rollout={self.segment} or more"
            )
        if self.ppo.rounds < 2:
            raise UsageError(f"ppo.steps={self.ppo.steps} is less than two rounds of PPO")


@lab("rlhf.trajectories", Config, needs_gpu=False)
def train(cfg: Config, run: Run) -> None:
    """Act, ask, fit the reward, improve the policy."""
    import numpy as np
    import torch

    from reinforcement_learning import PPO, Environments, film
    from rlhf.trajectories.behaviour import ScriptedJudge, ask, find_behaviour
    from rlhf.trajectories.evaluate import hidden_return
    from rlhf.trajectories.report import report
    from rlhf.trajectories.reward import Comparisons, RewardEnsemble, fit
    from rlhf.trajectories.segments import PaidEnvironments, draw_pairs, most_disputed

    torch.set_num_threads(1)  # on matrices this small a second thread costs more than it brings
    run.environment(cfg.env)
    behaviour = find_behaviour(cfg.behaviour)
    test_envs = Environments(cfg.env, cfg.eval_episodes)
    model = RewardEnsemble(test_envs.obs_dim, test_envs.num_actions, cfg.hidden, cfg.members).to(
        run.device
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), cfg.reward_lr, weight_decay=cfg.weight_decay, fused=True
    )
    paid = {
        "learned": model.reward, "hidden": lambda obs, action: behaviour(obs), "environment": None,
    }[cfg.reward]  # fmt: skip
    envs = PaidEnvironments(cfg.env, cfg.ppo.envs, paid)
    agent = PPO(cfg.ppo, envs, cfg.gamma, cfg.hidden, run.device)
    envs.reset(seed=cfg.seed)
    rng = np.random.default_rng(cfg.seed)
    judge = ScriptedJudge(behaviour, cfg.mistakes, rng)
    known = Comparisons(cfg.comparisons, cfg.segment, envs.obs_dim)
    run.track(envs=envs, reward=model, reward_optimizer=optimizer, comparisons=known, rng=rng,
              **agent.tracked)  # fmt: skip

    rounds = cfg.ppo.rounds
    for step in run.steps(rounds):
        rollout = agent.collect(envs)
        history = envs.take_history()
        logged: dict[str, Any] = {}
        if cfg.reward == "learned" and step % cfg.every == 0:
            due = cfg.first + (1 - cfg.first) * step / (rounds - 1)
            wanted = round(due * cfg.comparisons) - len(known)
            pairs = draw_pairs(history, cfg.segment, cfg.candidates * wanted, rng)
            chosen = most_disputed(model, *pairs, wanted)
            obs, action = (column[chosen] for column in pairs)
            known.add(obs, action, ask(judge, obs))
            updates = cfg.updates * (10 if step == 0 else 1)
            logged |= fit(model, optimizer, known, updates, cfg.batch_size, cfg.mistakes, rng)
        if step > 0 or cfg.reward != "learned":  # the first rollout was paid by an unfitted reward
            logged |= agent.update(rollout)
        if step % max(1, rounds // cfg.evaluations) == 0 or step == rounds - 1:
            score, length, _ = hidden_return(agent.act, test_envs, behaviour, cfg.seed + 1)
            logged |= {"eval/hidden_return": score, "eval/length": length}
        run.log(logged, envs.env_steps)
    run.save()

    run.plot("returns", "eval/hidden_return", "eval/length")
    run.gif("episode", *film(agent.act, cfg.env, cfg.seed))
    run.result(
        report(
            run, agent.act, model if cfg.reward == "learned" else None, test_envs, behaviour,
            cfg.segment, len(known),
        )
    )  # fmt: skip


if __name__ == "__main__":
    train()
