"""Week 4: representations learned without labels, by contrast and by reconstruction."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "augment": ["Augmentation", "colour_jitter", "gaussian_blur", "resized_crop"],
        "evaluate": ["fit_probe", "knn_accuracy", "knn_scores", "linear_probe", "represent"],
        "lars": ["LARS"],
        "losses": ["alignment", "nt_xent", "uniformity"],
        "model": [
            "Decoder",
            "ResNet18",
            "Small",
            "make_encoder",
            "projection_head",
            "square",
            "whitening",
        ],
        "objectives": ["Autoencoder", "SimCLR", "Supervised"],
    },
)
