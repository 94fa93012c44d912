"""Learn to act: tabular Q-learning, DQN, REINFORCE or PPO, all in the loop below.

    python -m reinforcement_learning.train +size=tiny                           PPO on CartPole-v1
    python -m reinforcement_learning.train +size=tiny algo=q_learning env=FrozenLake-v1

An algorithm is an object with `collect(envs)` (act, return the experience), `update(batch)` (learn
from it), `act(obs)` (greedily), `policy` (what is saved) and `tracked` (what resume needs).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labkit import LabConfig, Run, UsageError, lab

if TYPE_CHECKING:
    import torch

    from reinforcement_learning.envs import Environments


@dataclass
class Config(LabConfig):
    """Week 13: reinforcement learning, from a table of values to PPO."""

    device: str = "cpu"
    """Networks this small are faster on the CPU than on a GPU."""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    """The week computes in fp32."""
    algo: Literal["q_learning", "dqn", "reinforce", "ppo"] = "ppo"
    """The algorithm; settings that begin with another algorithm's name have no effect."""
    env: str = "LunarLander-v3"
    """A gymnasium environment with discrete actions."""
    gamma: float = 0.999
    """Discount of future rewards."""
    hidden: int = 64
    """Units in each of the two hidden layers."""
    bootstrap: Literal["truncated", "always", "never"] = "truncated"
    """Ends of an episode after which the value estimate counts; all but `truncated` are wrong."""
    evaluations: int = 50
    """Evaluations during training, evenly spaced."""
    eval_episodes: int = 100
    """Greedy episodes in each evaluation."""
    target_return: float | None = 240.0
    """Stop when an evaluation's mean return reaches this; null: use the whole budget."""

    ppo_steps: int = 2_000_000
    """PPO: budget of environment steps."""
    ppo_envs: int = 16
    """PPO: environments stepped together."""
    ppo_rollout: int = 512
    """PPO: steps of each environment between two updates."""
    ppo_lr: float = 1e-3
    """PPO: step size of Adam."""
    ppo_epochs: int = 4
    """PPO: passes over each rollout."""
    ppo_minibatches: int = 16
    """PPO: minibatches per pass."""
    ppo_gae_lambda: float = 0.98
    """PPO: weight of later TD errors in the advantage."""
    ppo_clip: float = 0.2
    """PPO: clip range of the probability ratio to the rollout's policy."""
    ppo_entropy: float = 0.01
    """PPO: weight of the policy's entropy in the objective."""

    reinforce_updates: int = 2000
    """REINFORCE: budget of policy updates."""
    reinforce_envs: int = 32
    """REINFORCE: whole episodes in an update."""
    reinforce_lr: float = 3e-3
    """REINFORCE: step size of Adam."""

    dqn_steps: int = 500_000
    """DQN: budget of environment steps."""
    dqn_envs: int = 8
    """DQN: environments stepped together."""
    dqn_collect: int = 1
    """DQN: steps of each environment between two rounds of updates."""
    dqn_updates: int = 4
    """DQN: gradient steps in a round."""
    dqn_lr: float = 5e-4
    """DQN: step size of Adam."""
    dqn_batch: int = 128
    """DQN: transitions in a gradient step."""
    dqn_buffer: int = 100_000
    """DQN: transitions in the replay memory."""
    dqn_warmup: int = 1000
    """DQN: transitions stored before learning begins."""
    dqn_target_every: int = 500
    """DQN: gradient steps between two copies to the target network."""
    dqn_exploration: float = 0.2
    """DQN: part of the budget over which the probability of a random action falls from 1."""
    dqn_epsilon: float = 0.1
    """DQN: probability of a random action after that."""
    dqn_double: bool = True
    """DQN: double Q-learning (the online network chooses the action, the target one values it)."""

    q_steps: int = 2_000_000
    """Q-learning: budget of environment steps."""
    q_envs: int = 16
    """Q-learning: environments stepped together."""
    q_lr: float = 0.5
    """Q-learning: step size at the first visit of a state and action."""
    q_lr_visits: float = 100.0
    """Q-learning: visits after which the step size has halved."""
    q_epsilon: float = 0.1
    """Q-learning: probability of a random action in the second half of the budget."""
    q_initial: float = 0.0
    """Q-learning: first value of all entries; optimistic ones make it explore."""
    q_bins: int = 14
    """Q-learning: bins on each axis of a continuous observation."""

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise UsageError(f"gamma must be between 0 and 1, got {self.gamma}; try gamma=0.99")
        if self.precision == "bf16":
            raise UsageError("this week computes in fp32 only: leave precision= out")
        any_number = {"target_return", "q_initial", "dqn_double"}
        may_be_zero = {"ppo_entropy", "dqn_warmup", "dqn_epsilon", "q_epsilon"}
        for name in Config.__annotations__.keys() - any_number:
            value = getattr(self, name)
            zero = value == 0 and name not in may_be_zero
            if zero or (not isinstance(value, str) and value < 0):
                raise UsageError(f"{name} must be > 0, got {value}")
        for name in ("ppo_gae_lambda", "dqn_exploration", "dqn_epsilon", "q_epsilon"):
            if getattr(self, name) > 1:
                raise UsageError(f"{name} must be at most 1, got {getattr(self, name)}")
        if self.algo == "ppo" and self.ppo_envs * (self.ppo_rollout // 2) < 2:
            # One of two consecutive steps may be a reset, not a transition; and advantages are
            # divided by their standard deviation.
            raise UsageError(
                "a rollout of PPO needs at least two transitions: ppo_rollout=2 or more, and "
                f"4 with ppo_envs=1; got ppo_envs={self.ppo_envs} ppo_rollout={self.ppo_rollout}"
            )

    def own(self, name: str) -> Any:
        """The chosen algorithm's setting of that name: `envs` is `ppo_envs` for PPO."""
        return getattr(self, f"{self.algo.removesuffix('_learning')}_{name}")


def make_agent(cfg: Config, envs: "Environments", device: "torch.device") -> Any:
    """The algorithm that `algo=` names. Raises UsageError for a budget of less than a round."""
    from reinforcement_learning import DQN, PPO, QLearning, Reinforce

    kinds = {"q_learning": QLearning, "dqn": DQN, "reinforce": Reinforce, "ppo": PPO}
    agent: Any = kinds[cfg.algo](cfg, envs, device)
    if agent.iterations < 1:
        raise UsageError(f"{cfg.own('steps')} steps are less than one round of {cfg.algo}")
    return agent


@lab("reinforcement_learning", Config, needs_gpu=False)
def train(cfg: Config, run: Run) -> None:
    """Act, learn, measure; keep the best policy."""
    import copy

    import numpy as np
    import torch

    from reinforcement_learning import Environments, evaluate

    torch.set_num_threads(1)  # on matrices this small a second thread costs more than it brings
    run.environment(cfg.env)
    envs = Environments(cfg.env, cfg.own("envs"), cfg.bootstrap)
    test_envs = Environments(cfg.env, cfg.eval_episodes)
    agent = make_agent(cfg, envs, run.device)
    envs.reset(seed=cfg.seed)
    best: dict[str, Any] = {"return": -np.inf, "policy": {}}
    run.track(envs=envs, best=best, **agent.tracked)

    for step in run.steps(agent.iterations):
        batch = agent.collect(envs)
        losses = agent.update(batch)
        if step % max(1, agent.iterations // cfg.evaluations) == 0 or step == agent.iterations - 1:
            score = evaluate(agent.act, test_envs, seed=(cfg.seed, step + 1)).mean().item()
            if score >= best["return"]:
                best |= {"return": score, "policy": copy.deepcopy(agent.policy.state_dict())}
            played = envs.take_finished()
            recent = {"train/return": np.mean(played)} if played else {}
            run.log({"eval/return": score, **recent, **losses}, envs.env_steps)
            if cfg.target_return is not None and score >= cfg.target_return:
                run.stop()
    run.save()
    report(cfg, run, agent, envs, test_envs, best["policy"])


def report(
    cfg: Config, run: Run, agent: Any, envs: "Environments", test_envs: "Environments", best: Any
) -> None:
    """Judge the last and the best policy on fresh episodes; draw curves, an episode, a table."""
    from reinforcement_learning import dynamic_programming as dp
    from reinforcement_learning import evaluate, film

    returns = evaluate(agent.act, test_envs, seed=(cfg.seed, 0))  # no step of the loop used this
    result = {"return": returns.mean(), "return_std": returns.std(), "env_steps": envs.env_steps}
    mdp = dp.tabular_mdp(cfg.env) if cfg.algo == "q_learning" else None
    if mdp is not None:
        q = dp.action_values(mdp, dp.value_iteration(mdp, cfg.gamma), cfg.gamma)
        exact, optimum = (dp.expected_return(mdp, t.argmax(1)) for t in (agent.policy.q, q))
        result |= {"exact_return": exact, "optimal_return": optimum, "optimality": exact / optimum}
        if figure := dp.picture(cfg.env, value_iteration=q, q_learning=agent.policy.q):
            run.figure("values", figure)
    agent.policy.load_state_dict(best)
    result["best_return"] = evaluate(agent.act, test_envs, seed=(cfg.seed, 0)).mean()
    run.plot("returns", "eval/return", *(["train/return"] if envs.episodes else []))
    run.gif("episode", *film(agent.act, cfg.env, cfg.seed))
    run.result(result)


if __name__ == "__main__":
    train()
