"""Week 11: video diffusion, from week 10's U-Net to clips, predictions and a small cascade."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "data": ["Clips", "Motion", "bounce", "pools"],
        "model": ["VideoUNet"],
        "pipeline": ["Pipeline", "Settings"],
        "tracking": ["track"],
    },
)
