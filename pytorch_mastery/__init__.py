"""Week 3: a CNN that reads digits, trained in a minute, and the judge of later weeks."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "augment": ["random_shift"],
        "evaluate": ["accuracy"],
        "model": ["CNN", "load_classifier", "resize", "save_classifier"],
        "schedule": ["one_cycle"],
    },
)
