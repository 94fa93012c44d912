"""Week 17: pictures and words in one space (CLIP), and a language model that sees (Flamingo)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "losses": ["clamp_logit_scale", "infonce", "siglip"],
        "pipeline": ["Pipeline"],
        "recall": ["ranks", "recall_at_k"],
        "scenes": ["Scenes", "captions_of", "render"],
        "towers": ["CLIP", "ImageTower", "TextTower", "pool_end"],
    },
)
