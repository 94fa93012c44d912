"""Week 6: the complete Transformer of Vaswani et al. 2017, which translates between languages."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "batches": ["Batches", "Corpus", "padding_mask", "shift"],
        "bpe": ["BPE", "count_words", "learn", "learn_with_library"],
        "decode": ["beam_search", "greedy", "length_penalty"],
        "loss": ["smoothed_cross_entropy"],
        "model": ["EncoderLayer", "Shape", "Transformer"],
        "schedule": ["noam"],
    },
)
