"""Week 3: a CNN that classifies digits, used to evaluate later weeks, and PyTorch's mechanics."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["autograd", "functions", "hooks", "names"],
    submod_attrs={
        "augment": ["random_shift"],
        "autograd": ["Value"],
        "batch_norm": ["BatchNorm"],
        "distance": ["FeatureDistance", "judge"],
        "evaluate": ["accuracy"],
        "functions": ["clip_gradient", "reverse_gradient", "round_through", "sign_through"],
        "hooks": ["activation_statistics", "extract", "gradient_norms", "outputs_of"],
        "model": ["CNN", "load_classifier", "resize", "save_classifier"],
        "schedule": ["one_cycle"],
    },
)
