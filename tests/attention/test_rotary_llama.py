"""Rotary positions against Hugging Face's Llama, whose weights are laid out for this convention."""

import pytest
import torch

from attention import positions

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def test_rotary_is_llamas() -> None:
    from transformers.models.llama.modeling_llama import (
        LlamaRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    config = transformers.LlamaConfig(hidden_size=64, num_attention_heads=4)  # heads of 16
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 4, 9, 16, generator=g) for _ in range(2))
    where = torch.arange(30, 39)
    cos, sin = LlamaRotaryEmbedding(config)(q, where[None].expand(2, -1))
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    tables = positions.rotary_tables(where, 16)
    for x, expected in zip((q, k), theirs, strict=True):
        torch.testing.assert_close(positions.rotary(x, *tables), expected, atol=1e-5, rtol=1e-5)
