"""Week 24: the whole lab in one command and one page."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "judge": ["Share", "prefer", "win_rate"],
        "stages": ["Chain", "Claim", "Once", "Stage", "order"],
        "template": ["parse", "pieces", "render"],
    },
)
