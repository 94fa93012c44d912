"""Week 16: learning from preferences, by reward models and PPO, and by DPO and its relatives."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "best_of_n": ["best_of_n_kl", "expected_best"],
        "kl": ["kl_estimate", "token_kl"],
        "losses": ["cdpo_loss", "ipo_loss", "kto_loss", "orpo_loss", "simpo_loss"],
        "ppo": ["penalised_rewards", "value_loss", "whiten"],
        "preferences": [
            "Pair",
            "Rows",
            "answer_logps",
            "answer_mask",
            "collate",
            "encode",
            "in_batches",
            "table",
            "token_logps",
        ],
        "reward_model": ["RewardModel", "bradley_terry_loss", "calibration_error"],
        "sample": ["respond", "texts_of"],
        "start": ["optimizers_of", "set_rates"],
    },
)
