"""Week 20: quantisation, a serving engine, and training divided among processes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submodules=["packed"],
    submod_attrs={
        "api": ["Api"],
        "engine.engine": ["Engine"],
        "engine.sampling": ["Sampling"],
        "evaluate": ["perplexity"],
        "models": ["open_folder"],
        "protocol": ["Refused"],
        "quantize": ["Quantized", "absmax", "zero_point"],
        "schemes": ["SCHEMES", "quantize_model"],
        "serve": ["listen"],
        "settings": ["EngineSettings", "QuantizeSettings", "ServerSettings"],
        "worker": ["Worker"],
    },
)
