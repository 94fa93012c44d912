"""Streams, lens, attribution, patching and the induction score, each against TransformerLens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pretraining import GPT, Shape, build_tokenizer, export
from robustness.mechanistic import induction, lens, patching
from robustness.mechanistic.hooks import run_with_cache, run_with_hooks
from robustness.mechanistic.patterns import repeated

pytest.importorskip("transformer_lens")
close: Callable[..., None] = torch.testing.assert_close


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[GPT, Any]:
    """Week 7's GPT with random weights, and the same in TransformerLens."""
    from transformer_lens.model_bridge import TransformerBridge

    tokenizer = build_tokenizer("bpe", "pydoc", "the cat sat on the mat and the dog " * 3, 280)
    torch.manual_seed(0)
    gpt = GPT(Shape(len(tokenizer), 32, 16, 3, 2)).eval()
    for weight in gpt.parameters():
        weight.data += 0.3 * torch.randn_like(weight)
    folder: Path = tmp_path_factory.mktemp("model")
    export(gpt, tokenizer, folder)
    return gpt, TransformerBridge.boot_transformers(str(folder), device="cpu")


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randint(277, (3, 11))


@torch.no_grad()
def test_streams_and_what_the_lens_reads_in_them(models: tuple[GPT, Any], tokens: Tensor) -> None:
    gpt, theirs = models
    logits, cache = theirs.run_with_cache(tokens)
    streams = lens.streams_of(gpt, tokens)
    close(streams, cache.accumulated_resid(layer=-1), rtol=1e-4, atol=1e-4)
    read = lens.logit_lens(gpt, streams)
    close(read[-1], logits, rtol=1e-4, atol=1e-4)
    for ours, stream in zip(read, cache.accumulated_resid(layer=-1), strict=True):
        close(ours, theirs.unembed(theirs.ln_final(stream)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_each_layer_adds_to_a_logit(models: tuple[GPT, Any], tokens: Tensor) -> None:
    gpt, theirs = models
    _, cache = theirs.run_with_cache(tokens)
    parts, labels = cache.decompose_resid(layer=-1, mode="all", return_labels=True)
    assert labels[:2] == ["embed", "pos_embed"]
    names, ours = lens.components_of(gpt, tokens)
    assert len(names) == len(labels) - 1, "positions are in the embedding here"
    close(ours[0], parts[0] + parts[1], rtol=1e-4, atol=1e-4)
    close(ours[1:], parts[2:], rtol=1e-4, atol=1e-4)
    wanted = cache.apply_ln_to_stack(parts, layer=-1)  # by the last norm's scale; the gain is ours
    answer = tokens[:, 0]
    direction = gpt.head.weight[answer] * gpt.norm.weight
    found = lens.direct_logit_attribution(ours[:, :, -1], direction, True, gpt.norm.eps)
    close(found[1:], (wanted[2:, :, -1] * direction).sum(-1), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_putting_a_clean_stream_back(models: tuple[GPT, Any], tokens: Tensor) -> None:
    from transformer_lens.patching import get_act_patch_resid_pre

    gpt, theirs = models
    corrupt = tokens.clone()
    corrupt[:, 3] = (corrupt[:, 3] + 5) % 277
    answer = tokens[:, 4]
    names = ["drop", *(f"blocks.{i}" for i in range(2))]
    clean_logits, clean = run_with_cache(gpt, tokens, names)
    corrupt_logits = run_with_hooks(gpt, corrupt, {})

    def metric(logits: Tensor) -> Tensor:
        return patching.restored(logits[:, -1], clean_logits[:, -1], corrupt_logits[:, -1], answer)

    table = get_act_patch_resid_pre(theirs, corrupt, theirs.run_with_cache(tokens)[1], metric)
    assert table.shape == (3, 11)
    for layer, name in enumerate(names):
        for place in range(11):
            put = torch.tensor([place])

            def back(x: Tensor, name: str = name, put: Tensor = put) -> Tensor:
                return patching.patch(x, clean[name], put)

            ours = metric(run_with_hooks(gpt, corrupt, {name: back}))
            close(ours, table[layer, place], rtol=1e-2, atol=1e-3)
    close(table[0, 3], torch.tensor(1.0), rtol=1e-3, atol=1e-3)
    assert table[1].abs().max() > 0.01, "patching one place of the middle changes something"


@torch.no_grad()
def test_the_induction_score_is_their_heads_pattern(models: tuple[GPT, Any]) -> None:
    from transformer_lens.head_detector import get_induction_head_detection_pattern

    _, theirs = models
    period = 5
    rows, _ = repeated(4, 2 * period, 277, (period, period), (3,))
    _, cache = theirs.run_with_cache(rows)
    for layer in range(3):
        attention = cache[f"blocks.{layer}.attn.hook_pattern"]
        ours = induction.prefix_matching_score(attention, period)
        masks = [get_induction_head_detection_pattern(row[None]) for row in rows]
        hits = torch.stack([
            (attention[i] * mask).sum((-2, -1)) for i, mask in enumerate(masks)
        ])  # fmt: skip
        close(ours, hits.mean(0) / period, rtol=1e-4, atol=1e-6)
