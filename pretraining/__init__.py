"""Week 7: a GPT pretrained by the 2019 recipe and by today's, and how its loss scales."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "data": ["encode", "sample_batch"],
        "evaluate": ["bits_per_byte", "negative_log_likelihood", "word_perplexity"],
        "huggingface": ["export", "from_huggingface", "load", "to_huggingface"],
        "mlm": ["mask_tokens"],
        "model": ["GPT", "Shape", "rotate"],
        "optimizer": ["newton_schulz"],
        "powerlaw": ["Law", "compute_optimal", "fit", "isoflop_minimum"],
        "sample": ["generate", "keep_top_k", "keep_top_p"],
        "schedule": ["cosine", "warmup_stable_decay"],
        "speed": ["flops_per_token"],
        "tokenizer": ["build_tokenizer"],
    },
)
