"""Week 20: quantisation, a serving engine, and training divided among processes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "engine.engine": ["Engine"],
        "engine.sampling": ["Sampling"],
        "evaluate": ["perplexity"],
        "models": ["open_folder"],
        "quantize": ["Quantized", "absmax", "zero_point"],
        "schemes": ["SCHEMES", "quantize_model"],
        "settings": ["EngineSettings", "QuantizeSettings", "ServerSettings"],
    },
)
