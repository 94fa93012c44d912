"""Week 5: attention by hand, naive and tiled, with heads, positions and a cache around it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "attention": ["causal_mask", "scaled_dot_product_attention"],
        "cache": ["KVCache"],
        "flash": ["flash_attention", "online_softmax"],
        "heads": ["MultiHeadAttention", "attend", "merge_heads", "repeat_kv", "split_heads"],
        "memory": ["PeakMemory"],
        "model": ["Transformer"],
        "positions": ["alibi_bias", "alibi_slopes", "rotary", "rotary_tables", "sinusoidal"],
    },
)
