"""Week 21: a model that is helpful and harmless, and how to measure both."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={"measures": ["cohen_kappa", "gap_recovered", "wilson_interval"]},
)
