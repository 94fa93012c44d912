"""A cross-encoder that reads a question and a passage together: a reranker and a reader in one.

A dual encoder must put all of a passage into one vector before the question is known. Read
together, each word of the passage can be compared with each word of the question. That is better
and dearer: nothing can be computed in advance, so only the first few passages are read.

It has three outputs, as the reader of Dense Passage Retrieval (Karpukhin et al. 2020, section 6.1):
how relevant the passage is, and where the answer begins and ends in it. Here it is trained from
nothing on a few thousand questions, so it is told what a large model knows already: whether a word
is also in the question, and the question word most like it (Chen et al. 2017, section 3.2: exact
match, aligned question embedding). The layers are convolutions, as in QANet (Yu et al. 2018).

Letters: B pairs, T words of the passage, U words of the question, e embedding, d width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from retrieval.tensors import Sheets


@exercise(minutes=20)
def best_span(begin: Tensor, end: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest answer: first <= last < first + longest, of the greatest sum of scores.

    Args:
        begin, end: scores of each word as the first and as the last of the answer, (B, T), not
            changed. Scores of padding are -inf.
        longest: words of an answer at most; may be more than T.
    Returns:
        first and last, int64 (B,), and begin[first] + end[last], (B,), into which gradients flow.
        Of equal sums the one with the smaller first, then the smaller last.
    """
    length = begin.shape[1]
    ones = torch.ones(length, length, dtype=torch.bool, device=begin.device)
    allowed = ones.triu() & ones.tril(longest - 1)
    total = begin[:, :, None] + end[:, None, :]
    total = total.masked_fill(~allowed, -torch.inf).flatten(1)
    best, place = total.max(dim=1)
    return place // length, place % length, best


class Block(nn.Module):
    """A convolution over neighbouring words, with norm and residual: (B, T, d) -> the same."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.norm(x) * mask[..., None]
        h = self.conv(h.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.dropout(F.gelu(h))
        return out


class CrossEncoder(nn.Module):
    """Questions and passages, row by row, to relevance and places of answers."""

    def __init__(
        self, idf: Tensor, embedding: int, width: int, blocks: int, dropout: float
    ) -> None:
        """Args:
        idf: of each id of the vocabulary, float (V,).
        embedding: e.
        width: d.
        blocks: convolutions; the dilation goes 1, 2, 4, 1, 2, 4, ...
        """
        super().__init__()
        self.settings = {
            "embedding": embedding, "width": width, "blocks": blocks, "dropout": dropout,
        }  # fmt: skip
        self.embedding = nn.Embedding(len(idf), embedding, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.3)
        self.idf: Tensor
        self.register_buffer("idf", idf)
        self.align = nn.Linear(embedding, embedding)
        self.asked = Block(embedding, 1, dropout)
        self.pool = nn.Linear(embedding, 1)
        self.question = nn.Linear(embedding, width)
        self.enter = nn.Linear(2 * embedding + 6, width)
        self.blocks = nn.ModuleList(Block(width, 2 ** (i % 3), dropout) for i in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.begin, self.end = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.relevance = nn.Sequential(
            nn.Linear(2 * width + 2, width), nn.GELU(), nn.Linear(width, 1)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, q: Sheets, p: Sheets) -> tuple[Tensor, Tensor, Tensor]:
        """q of B questions and p of B passages -> relevance (B,), begin and end scores (B, T), -inf
        at padding.
        """
        q_mask, p_mask = q.mask, p.mask
        q_in, p_in = self.dropout(self.embedding(q.ids)), self.dropout(self.embedding(p.ids))
        # The question as one vector: a weighted mean of its words in context.
        asked = self.asked(q_in, q_mask)
        share = self.pool(asked).squeeze(-1).masked_fill(~q_mask, -torch.inf).softmax(dim=1)
        vector = self.question((share[..., None] * asked).sum(dim=1))  # (B, d)
        # The question word that is most like each word of the passage (Chen et al. 2017).
        like = F.relu(self.align(p_in)) @ F.relu(self.align(q_in)).mT
        like = like.masked_fill(~q_mask[:, None], -torch.inf).softmax(dim=-1)
        aligned = like @ q_in  # (B, T, e)
        same = (p.forms[:, :, None] == q.forms[:, None, :]) & q_mask[:, None]  # (B, T, U)
        akin = (p.stems[:, :, None] == q.stems[:, None, :]) & q_mask[:, None]
        rarity = self.idf[p.ids] / 8
        shared, stem = same.any(-1).float(), akin.any(-1).float()
        features = torch.stack([shared, stem, shared * rarity, rarity], dim=-1)
        x = self.enter(torch.cat([p_in, aligned, features, p.flags], dim=-1)) + vector[:, None]
        for block in self.blocks:
            x = block(x, p_mask)
        x = self.norm(x)
        begin, end = ((x @ head(vector)[..., None]).squeeze(-1) for head in (self.begin, self.end))
        begin, end = (s.float().masked_fill(~p_mask, -torch.inf) for s in (begin, end))
        # How much of the question, by idf, stands in the passage: what BM25 looks at.
        weight = self.idf[q.ids] * q_mask
        covered = [(weight * seen.any(dim=1)).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-6)
                   for seen in (same, akin)]  # fmt: skip
        strongest = x.masked_fill(~p_mask[..., None], -1e4).amax(dim=1)
        summary = torch.cat([strongest, vector, torch.stack(covered, dim=-1)], dim=-1)
        return self.relevance(summary).squeeze(-1).float(), begin, end


def reading_loss(
    relevance: Tensor, begin: Tensor, end: Tensor, spans: Tensor
) -> tuple[Tensor, Tensor]:
    """Of B questions with G passages each, the first of which has the answer (section 6.1).

    Args:
        relevance: (B, G).
        begin, end: scores in the first passages, (B, T).
        spans: first and last word of the answers, int64 (B, 2); -1 where it is not read.
    Returns:
        Cross-entropy of choosing the passage, and of both places, 0-d tensors.
    """
    choice = F.cross_entropy(relevance, torch.zeros(len(relevance), dtype=torch.long,
                                                    device=relevance.device))  # fmt: skip
    places = [F.cross_entropy(scores, spans[:, i], ignore_index=-1, reduction="sum")
              for i, scores in enumerate((begin, end))]  # fmt: skip
    return choice, (places[0] + places[1]) / (spans[:, 0] >= 0).sum().clamp(min=1)


def answer_likelihood(begin: Tensor, end: Tensor, spans: Tensor) -> Tensor:
    """log p(answer | question, passage): the sum over all places where the answer stands.

    Args:
        begin, end: (B, T), -inf at padding.
        spans: first and last words of up to M places, int64 (B, M, 2), -1 where there is none.
    Returns:
        float (B,), -inf for a passage in which the answer does not stand.
    """
    here = spans[..., 0] >= 0
    first, last = spans.clamp(min=0).unbind(dim=-1)
    total = begin.log_softmax(1).gather(1, first) + end.log_softmax(1).gather(1, last)
    return total.masked_fill(~here, -torch.inf).logsumexp(dim=1)
