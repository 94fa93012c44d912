"""The tokenizer of the chats: one token for each digit, and for each mark of the template.

A tokenizer that has read prose writes 47 as one token, and 470 as another one. A model that copies
a number into a call of the calculator then has to know how each of them is spelled. So numbers are
read and written digit by digit, as in Touvron et al. 2023 (*LLaMA*, section 2.1). What the template
and each call of a tool repeat is one token, as the marks of other chat models are: a tool's chat
becomes half as long.
"""

from __future__ import annotations

from typing import Any

import torch

from capstone.template import ANSWER, HEAD
from pretraining import GPT, Shape

CALLS = tuple(f"\nAction: {tool}[" for tool in ("calculate", "search", "finish"))
MARKS = (HEAD, ANSWER, "Question:", "Thought:", "Observation:", *CALLS)


def adapt(model: GPT, tokenizer: Any) -> GPT:
    """The model with a token more for each of MARKS; its tokenizer is changed in place.

    A new token begins as the mean of the tokens that it replaces. A tokenizer that has been adapted
    already is left as it is, and the model with it.
    """
    from tokenizers import AddedToken, pre_tokenizers

    spelled = [tokenizer.encode(mark, add_special_tokens=False) for mark in MARKS]
    if all(len(tokens) == 1 for tokens in spelled):
        return model
    inner = tokenizer.backend_tokenizer
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, inner.pre_tokenizer])
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    state = model.state_dict()
    old = state["embedding.weight"]
    table = old.new_zeros(max(len(old), len(tokenizer)), old.shape[1])  # some have rows to spare
    table[: len(old)] = old
    for number, tokens in zip(tokenizer.convert_tokens_to_ids(list(MARKS)), spelled, strict=True):
        table[number] = old[torch.tensor(tokens)].mean(dim=0)
    state["embedding.weight"] = state["head.weight"] = table  # one matrix
    shape = model.shape
    larger = GPT(Shape(len(table), shape.context, shape.width, shape.layers, shape.heads))
    larger.load_state_dict(state)
    return larger.to(old.device)
