"""Induction heads: heads that look for what followed the present token last time, and repeat it.

    ... A B ... A  →  B

It takes two layers. A head of the first, a *previous-token head*, writes at B's position that A
came before. A head of the second finds that note by its key: K-composition (Elhage et al. 2021).
That head attends to B (*prefix matching*) and raises B's logit (*copying*); Olsson et al. 2022,
"In-context Learning and Induction Heads", define both scores.

Letters: B batch, H heads, T tokens, C width, V vocabulary, P period of a repeated pattern.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import exercise
from robustness.mechanistic.hooks import Hook, run_with_cache, run_with_hooks
from robustness.mechanistic.model import AttentionOnly
from robustness.mechanistic.patterns import is_repeat


@exercise(minutes=15)
def prefix_matching_score(pattern: Tensor, period: int) -> Tensor:
    """How much each head attends to the token after the last place of the present one.

    The rows repeat a pattern of `period` tokens, P, none of which stands in it twice. So the token
    at position i >= P stood at i - P before, and what followed it stands at i - P + 1. The score is
    the mean attention from i to i - P + 1, over the batch and over all i from P to T - 1 (Olsson et
    al. 2022, "prefix matching"). 1 is a perfect induction head.

    Args:
        pattern: attention (B, H, T, T); its rows, the last dimension, are over keys.
        period: P, from 2 to T - 1.
    Returns:
        (H,), from 0 to 1.
    Raises:
        ValueError when the period is below 2, or when the row is not longer than it: nothing is
        repeated then.
    """
    length = pattern.shape[-1]
    if not 2 <= period < length:
        raise ValueError(f"a row of {length} tokens repeats nothing with a period of {period}")
    return pattern.diagonal(1 - period, dim1=-2, dim2=-1)[..., 1:].mean(dim=(0, -1))


def previous_token_score(pattern: Tensor) -> Tensor:
    """Mean attention to the position before, over the batch and positions 1 to T - 1: (H,)."""
    return pattern.diagonal(-1, dim1=-2, dim2=-1).mean(dim=(0, -1))


def copying_score(ov: Tensor, embedding: Tensor, unembedding: Tensor) -> Tensor:
    """Whether attending to a token raises the logit of the same token (Elhage et al. 2021).

    Row i of E W_OV U says how the logits change when token i is attended to (norms left aside). A
    head copies when that matrix has positive eigenvalues λ:

        score = Σ Re λ / Σ |λ|        1: it copies; -1: it suppresses what it sees

    Args:
        ov: W_V W_O of each head, (H, C, C), applied to rows: x ov.
        embedding: E (V, C).
        unembedding: U (C, V).
    Returns:
        (H,), from -1 to 1. With V much larger than C, the C x C matrix W_OV U E has the same
        eigenvalues except for zeros, so that one is decomposed.
    """
    values = torch.linalg.eigvals((ov @ (unembedding @ embedding)).double())
    return (values.real.sum(-1) / values.abs().sum(-1)).to(ov.dtype)


@exercise(minutes=15)
def k_composition(ov: Tensor, qk: Tensor) -> Tensor:
    """How much the keys of later heads read what earlier heads write (Elhage et al. 2021).

        score = ‖W_QK W_OVᵀ‖_F / (‖W_QK‖_F ‖W_OV‖_F)        (Frobenius norms)

    W_OV acts on rows, x W_OV, and the score of a query x and a key y is x W_QK yᵀ. The key y is
    what the earlier head wrote, z W_OV, so the scores become x W_QK W_OVᵀ zᵀ.

    Args:
        ov: of the earlier heads, (H, C, C).
        qk: W_Q W_Kᵀ of the later heads, (G, C, C).
    Returns:
        (H, G), from 0 to 1: earlier head h with later head g. 0 for a head whose matrix is 0.
    """
    joined = torch.einsum("gxy,hzy->hgxz", qk, ov)
    norms = torch.linalg.matrix_norm(ov)[:, None] * torch.linalg.matrix_norm(qk)
    return torch.linalg.matrix_norm(joined) / norms.clamp_min(torch.finfo(ov.dtype).tiny)


def next_token_losses(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy of each next token in nats: logits (B, T, V), tokens (B, T) -> (B, T - 1)."""
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


def first_and_repeat(losses: Tensor, period: Tensor | int) -> tuple[Tensor, Tensor]:
    """Mean loss where the next token is new, and where it is certain: scalars.

    losses (B, T - 1); the period of each row, (B,), or of all.

    Their difference is an in-context learning score (Olsson et al. 2022 take a late token minus an
    early one, of text).
    """
    periods = torch.as_tensor(period, device=losses.device).expand(len(losses))
    again = is_repeat(periods, losses.shape[1] + 1)
    return losses[~again].mean(), losses[again].mean()


def patterns_of(model: AttentionOnly, tokens: Tensor) -> list[Tensor]:
    """The attention of each layer, (B, H, T, T) each. Raises as `run_with_hooks` does."""
    names = [f"blocks.{layer}.pattern" for layer in range(len(model.blocks))]
    cache = run_with_cache(model, tokens, names)[1]
    return [cache[name] for name in names]


def scores_of(model: AttentionOnly, rows: Sequence[tuple[Tensor, int]]) -> Tensor:
    """`prefix_matching_score` of each head, the mean over rows of several periods: (layers, H).

    Args:
        rows: tokens (B, T) and their period.
    """
    return torch.stack([
        torch.stack([prefix_matching_score(p, period) for p in patterns_of(model, tokens)])
        for tokens, period in rows
    ]).mean(0)  # fmt: skip


def without_head(mixed: Tensor, head: int) -> Tensor:
    """Mean ablation: `mixed` (B, H, T, d) with the head's values replaced by their mean over batch
    and positions, so that it says nothing about this row but keeps its usual size.
    """
    ablated = mixed.clone()
    ablated[:, head] = mixed[:, head].mean(dim=(0, 1))
    return ablated


def ablations(model: AttentionOnly, tokens: Tensor, period: Tensor | int) -> Tensor:
    """Loss on repeats, in nats, when one head at a time is mean-ablated: (layers, H)."""

    def loss(layer: int, head: int) -> float:
        hooks: dict[str, Hook] = {f"blocks.{layer}.mixed": lambda x: without_head(x, head)}
        losses = next_token_losses(run_with_hooks(model, tokens, hooks), tokens)
        return float(first_and_repeat(losses, period)[1])

    heads = model.layers[0].count
    return torch.tensor([[loss(i, h) for h in range(heads)] for i in range(len(model.blocks))])
