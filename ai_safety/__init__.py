"""Week 21: a model that is helpful and harmless, and how to measure both."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "constitutional": ["critique_and_revise", "loss_mask", "pair_preference"],
        "dialogues": ["Request", "ask", "held_out", "outcome"],
        "evaluate": ["Axes", "Share", "attack_success", "both_axes", "judge_model"],
        "jailbreaks": ["Attacked", "attack"],
        "judge": ["RefusalClassifier", "agreement", "keyword_refusal"],
        "measures": ["cohen_kappa", "gap_recovered", "wilson_interval"],
    },
)
