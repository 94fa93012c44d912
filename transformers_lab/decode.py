"""Decoding a translation: greedily, or by beam search (Vaswani et al. 2017, section 6.1).

The likeliest token at each position does not give the likeliest sentence. Beam search keeps the K
best beginnings instead of one. Every further token lowers the probability, so short sentences would
win; hypotheses Y are therefore ranked by (Wu et al. 2016, equation 14, without the coverage term)

    score(Y) = log p(Y | source) / lp(Y)        lp(Y) = ((5 + |Y|) / 6)^α

The paper uses K = 4, α = 0.6, and at most 50 tokens more than the source has. Each new token costs
one position: week 5's cache keeps the decoder's past, `Memory` the keys and values of the source.

Letters: B batch, K beams, V vocabulary, T tokens generated.
"""

import torch
from torch import Tensor

from labkit import exercise
from transformers_lab.bpe import BOS, EOS, PAD
from transformers_lab.model import Transformer

EXTRA = 50
"""How many tokens longer than its source a translation may be."""


@torch.no_grad()
def greedy(model: Transformer, source: Tensor, limit: int | None = None) -> Tensor:
    """The likeliest token, then the likeliest after it, ...: int64 (B, S) -> (B, T).

    Each row ends with EOS, followed by PAD, or is cut off at `limit` tokens (S + 50 when None).
    """
    limit = source.shape[1] + EXTRA if limit is None else limit
    memory, caches = model.encode(source), model.new_caches(len(source), limit)
    feed = torch.full((len(source), 1), BOS, device=source.device)
    done = torch.zeros(len(source), 1, dtype=torch.bool, device=source.device)
    written: list[Tensor] = []
    for _ in range(limit):
        following = model.logits(model.decode(feed, memory, caches)).argmax(dim=-1)  # (B, 1)
        feed = following.masked_fill(done, PAD)
        written.append(feed)
        done |= feed == EOS
        if done.all():
            break
    return torch.cat(written, dim=1)


@exercise(minutes=5)
def length_penalty(length: Tensor, alpha: float) -> Tensor:
    """lp of hypotheses of these lengths, ((5 + |Y|) / 6)^α, of the same shape: 1 for α = 0."""
    return ((5 + length) / 6) ** alpha


@exercise(minutes=30)
def extend(
    scores: Tensor, lengths: Tensor, done: Tensor, log_probs: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The K best of all hypotheses that are one token longer, or finished.

    A hypothesis that is not done has V continuations: the token's log-probability is added to its
    score, and 1 to its length. A hypothesis that is done has one continuation, PAD, which changes
    neither. All are ranked by score / lp(length), each with its own length.

    Args:
        scores: log p of the hypotheses, float (B, K); -inf for one that does not exist yet.
        lengths: tokens of each, int64 (B, K).
        done: bool (B, K).
        log_probs: of each next token, float (B, K, V).
        alpha: of `length_penalty`.
    Returns:
        For the K best, the best first, each (B, K): scores (not divided by lp), lengths, parents
        (which of the K hypotheses is continued) and tokens (by which token).
    """
    only_pad = torch.full_like(log_probs[0, 0], -torch.inf)
    only_pad[PAD] = 0.0
    total = scores[..., None] + torch.where(done[..., None], only_pad, log_probs)  # (B, K, V)
    longer = lengths + ~done
    ranked = total / length_penalty(longer, alpha)[..., None]
    best = ranked.flatten(1).topk(scores.shape[1]).indices  # (B, K), into K V
    parents, tokens = best // log_probs.shape[-1], best % log_probs.shape[-1]
    return total.flatten(1).gather(1, best), longer.gather(1, parents), parents, tokens


@torch.no_grad()
def beam_search(
    model: Transformer, source: Tensor, beams: int = 4, alpha: float = 0.6, limit: int | None = None
) -> Tensor:
    """The best hypothesis found with K = `beams`: int64 (B, S) -> (B, T), ended as in `greedy`."""
    limit, count = source.shape[1] + EXTRA if limit is None else limit, len(source)
    sentence = torch.arange(count, device=source.device)[:, None]  # (B, 1)
    memory = model.encode(source).select(sentence.expand(count, beams).flatten())
    caches = model.new_caches(count * beams, limit)
    scores = torch.full((count, beams), -torch.inf, device=source.device)
    scores[:, 0] = 0.0  # one empty hypothesis: K equal hypotheses would stay equal
    lengths = torch.zeros(count, beams, dtype=torch.int64, device=source.device)
    done = torch.zeros_like(lengths, dtype=torch.bool)
    written = lengths[..., None][..., :0]  # (B, K, T)
    feed = torch.full((count * beams, 1), BOS, device=source.device)
    for _ in range(limit):
        logits = model.logits(model.decode(feed, memory, caches)[:, -1])
        log_probs = logits.float().log_softmax(dim=-1).view(count, beams, -1)
        scores, lengths, parents, tokens = extend(scores, lengths, done, log_probs, alpha)
        written = torch.cat([written[sentence, parents], tokens[..., None]], dim=-1)
        done = done.gather(1, parents) | (tokens == EOS)
        if done.all():
            break
        rows = (sentence * beams + parents).flatten()  # each continues with its parent's past
        for cache in caches:
            cache.keys[:, :, : cache.length] = cache.keys[rows, :, : cache.length]
            cache.values[:, :, : cache.length] = cache.values[rows, :, : cache.length]
        feed = tokens.view(-1, 1)
    best = (scores / length_penalty(lengths, alpha)).argmax(dim=1)
    return written[sentence[:, 0], best]
