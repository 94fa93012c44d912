"""Week 10: diffusion models, from DDPM (Ho et al. 2020) to rectified flow, on a laptop."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "ddpm": ["DDPM"],
        "ema": ["EMA"],
        "flow": ["RectifiedFlow"],
        "guidance": ["guided"],
        "latent": ["scale_factor"],
        "model": ["UNet", "time_embedding"],
        "pipeline": ["Pipeline", "Settings", "from_pictures", "to_pictures"],
        "schedule": ["cosine_betas", "linear_betas"],
    },
)
