"""Week 22: how models fail under attack, and what happens inside them."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "attacks": ["fgsm", "pgd", "project", "random_start", "worst_case"],
        "explanations": ["grad_cam", "integrated_gradients", "smooth_grad"],
        "model": ["make_network"],
        "smoothing": ["certified_radius", "lower_bound"],
        "square": ["square_attack"],
    },
)
