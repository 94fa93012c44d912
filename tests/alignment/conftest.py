"""A GPT-2 small enough for a test, without dropout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture
def make_gpt2() -> Callable[..., Any]:
    """make_gpt2(seed) -> GPT2LMHeadModel in eval mode: 50 tokens, 32 positions, width 16."""

    def make(seed: int = 0) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
            initializer_range=0.3,
        )  # fmt: skip
        return GPT2LMHeadModel(config).eval()

    return make


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE whose padding token is its end of text, as GPT-2's often is."""
    from alignment.base import make_tokenizer
    from alignment.chat import CHAT_TEMPLATE

    found = make_tokenizer(["Sort the words. ### Instruction: ### Response: apple pear"], 300)
    found.chat_template = CHAT_TEMPLATE
    assert found.pad_token_id == found.eos_token_id
    return found
