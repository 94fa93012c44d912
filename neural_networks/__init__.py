"""Week 2: a two-layer network on MNIST, in NumPy alone (LeCun et al. 1998)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "activations": ["Activation", "relu", "scaled_tanh"],
        "gradcheck": ["numerical_gradient", "relative_error"],
        "inputs": ["Scaling", "shifted_batch", "shifts"],
        "losses": ["cross_entropy"],
        "model": ["backward", "forward", "init"],
        "optim": ["SGD", "Adam", "warmup_linear"],
    },
)
