"""Week 14: a model of the world, and a controller that learns inside it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "cmaes": ["CMAES"],
        "controller": ["act", "parameter_count"],
        "dream": ["Features", "dreamed"],
        "dreamer": ["Dreamer"],
        "imagination": ["ActorCritic", "lambda_returns"],
        "mdn": ["Mixture", "log_prob", "sample"],
        "play": ["Driver", "episode_returns"],
        "rnn": ["MDNRNN", "Prediction", "Sequence"],
        "rollouts": ["Rollouts", "SmoothPolicy", "collect"],
        "rssm": ["RSSM", "balanced_kl", "straight_through"],
        "settings": [
            "CollectSettings",
            "DreamerSettings",
            "RNNSettings",
            "SearchSettings",
            "VAESettings",
        ],
        "track": ["MiniTrack", "MiniTrackVectorEnv"],
        "vae": ["VAE"],
    },
)
