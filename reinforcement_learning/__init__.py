"""Week 13: from a table of action values to PPO, on many environments in parallel."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "agent": ["Agent"],
        "dqn": ["DQN", "Replay", "td_target"],
        "dynamic_programming": ["MDP", "expected_return", "tabular_mdp", "value_iteration"],
        "envs": ["Environments", "Transition"],
        "evaluate": ["episode_returns"],
        "figures": ["film"],
        "model": ["QTable", "log_probability", "mlp", "sample"],
        "ppo": ["PPO", "clipped_objective", "gae"],
        "q_learning": ["QLearning", "epsilon_greedy", "q_update"],
        "reinforce": ["Reinforce", "discounted_returns", "policy_loss"],
        "settings": ["DQNSettings", "PPOSettings", "QSettings", "ReinforceSettings"],
    },
)
