"""Week 8: instruction tuning with LoRA, by hand and by the libraries, and a first step of DPO."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "adapter": ["load_adapter", "save_adapter"],
        "base": ["load_base"],
        "chat": ["CHAT_TEMPLATE", "Example", "encode", "labels", "prompt_text", "question"],
        "dpo": ["dpo_loss", "dpo_slope"],
        "evaluate": ["answers", "response_nll"],
        "lora": ["LoRALayer", "add_lora", "merge", "trainable"],
        "loss": ["response_loss", "sequence_logps"],
        "packing": ["Batch", "block_causal_mask", "collate", "pack"],
    },
)
