"""A dual encoder: one tower turns questions and passages into vectors of one space.

    Dense Passage Retrieval (Karpukhin et al. 2020), Sentence-BERT (Reimers & Gurevych 2019)

A text's vector is the mean of its tokens' vectors, weighted by a learned importance that begins at
the tokens' idf. A token that occurs again counts once: a second occurrence tells little, as in
BM25. Before any training this is a random projection of idf vectors, which keeps their cosines up
to about 1 / √d (Johnson & Lindenstrauss 1984): the encoder begins as a search by stems,
and learns which of them matter and which mean the same. Layers of week 6's encoder may look at the
context; what they add is multiplied by a gate that begins at 0.

Letters: B texts, T tokens, V vocabulary, d dimensions.
"""

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import sinusoidal
from labkit import exercise
from transformers_lab import EncoderLayer, Shape, padding_mask


@exercise(minutes=10)
def mean_pool(x: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Weighted mean over the tokens of each text, padding left out.

    Args:
        x: float (B, T, d). Padding may hold anything, NaN included.
        weights: float (B, T), above 0; of padding they may be anything.
        mask: bool (B, T), True at tokens.
    Returns:
        (B, d); zeros for a text without tokens.
    """
    kept = torch.where(mask, weights, 0.0)
    total = (kept[:, None] @ torch.where(mask[..., None], x, 0.0)).squeeze(1)
    return total / kept.sum(dim=1, keepdim=True).clamp(min=torch.finfo(kept.dtype).tiny)


def first_places(tokens: Tensor) -> Tensor:
    """Where each token of a text occurs for the first time: int64 (B, T) -> bool (B, T)."""
    ordered, place = tokens.sort(dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, place, first)


class Encoder(nn.Module):
    """Tokens to one vector a text, not scaled to length 1: the loss and the index do that."""

    def __init__(self, idf: Tensor, width: int, layers: int, heads: int, dropout: float) -> None:
        """Args:
            idf: float (V,), above 0: the first importance of each token.
            width: d.
            layers: of context; 0 is a bag of tokens.
            dropout: share of tokens left out in training, and of activations inside the layers.
        Raises:
            ValueError when heads do not divide width, or width is odd.
        """
        super().__init__()
        self.settings = {"width": width, "layers": layers, "heads": heads, "dropout": dropout}
        self.embedding = nn.Embedding(len(idf), width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.importance = nn.Parameter(idf.log())
        shape = Shape(width, heads, layers, 2 * width, dropout, pre_norm=True)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(layers))
        self.gate = nn.Parameter(torch.zeros(()))
        self.dropout = dropout

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, T), padded at the end with PAD -> (B, d)."""
        mask = padding_mask(tokens)
        seen = mask[:, 0, 0] & first_places(tokens)
        if self.training and self.dropout:
            seen = seen & (torch.rand(seen.shape, device=seen.device) >= self.dropout)
        weights = self.importance.exp()[tokens]
        if self.layers:
            return mean_pool(self.context(tokens, mask).float(), weights, seen)
        # The same mean without (B, T, d) in memory.
        weights = torch.where(seen, weights, 0.0)
        share = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)
        bag: Tensor = F.embedding_bag(
            tokens, self.embedding.weight, mode="sum", per_sample_weights=share
        )
        return bag

    def context(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Each token's vector with what the layers add to it: (B, T) -> (B, T, d)."""
        x: Tensor = self.embedding(tokens)
        width = x.shape[-1]
        before = width**0.5 * x + sinusoidal(tokens.shape[1], width, device=tokens.device)
        inside = before
        for layer in self.layers:
            inside = layer(inside, mask)
        return x + self.gate * (inside - before)

    def fingerprint(self) -> str:
        """SHA-256 of the weights: an index tells with it whose vectors it holds."""
        total = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            total.update(name.encode())
            total.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return total.hexdigest()
