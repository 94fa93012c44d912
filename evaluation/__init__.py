"""Week 12: how good are generated images? FID and its kin, what each sees, and how sure it is."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "bias": ["bootstrap_interval", "extrapolate"],
        "extractors": ["Extractor", "pretrained"],
        "frechet": ["Gaussian", "frechet_distance", "gaussian", "merge", "stream"],
        "inception": ["inception_score"],
        "kernel": ["kid", "mmd"],
        "manifold": ["density_coverage", "precision_recall"],
        "measures": ["Measured", "measure"],
        "memorisation": ["copied_share", "copying_z"],
        "settings": ["Measures"],
        "two_sample": ["two_sample_test"],
    },
)
