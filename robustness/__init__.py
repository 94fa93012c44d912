"""Week 22: how models fail under attack, and what happens inside them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "attacks": ["fgsm", "pgd", "pgd_correct", "project", "random_start", "worst_case"],
        "auto_pgd": ["apgd", "dlr_loss"],
        "explanations": ["grad_cam", "grad_cam_of", "integrated_gradients", "smooth_grad"],
        "faithfulness": ["deletion_curve", "rank_correlation"],
        "masking": ["signs_of_masking"],
        "model": ["make_network"],
        "smoothing": ["certified_radius", "certify", "lower_bound"],
        "square": ["square_attack"],
    },
)
