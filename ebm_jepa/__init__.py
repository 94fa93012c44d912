"""Week 15: energy-based models, and the joint-embedding predictive architecture."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "densities": ["log_normaliser"],
        "energy": ["LogitEnergy", "energy_of_logits"],
        "jem": ["JEM"],
        "jepa": ["JEPA"],
        "losses": ["contrastive_divergence", "denoising_score_matching"],
        "ood": ["attack", "auroc", "calibration_error"],
        "regularisers": ["effective_rank", "epps_pulley", "sigreg", "vicreg"],
        "sgld": ["ReplayBuffer", "sample", "sgld_step"],
        "vit": ["Encoder", "Predictor"],
    },
)
