"""What the dual encoder learns from: known passages, or the reader's likelihood (Atlas)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit.learning.modes import evaluating
from retrieval.batches import Batches, cut
from retrieval.encoder import Encoder
from retrieval.losses import contrastive_loss, distillation_loss
from retrieval.reader import CrossEncoder, answer_likelihood

Autocast = Callable[[], AbstractContextManager[Any]]
"""The type that networks compute in; the losses are computed in float32."""


def contrastive(encoder: Encoder, batches: Batches, step: int, autocast: Autocast) -> Tensor:
    """The loss of a step where each question's passage is known."""
    questions, candidates, gold, passage = batches.contrast(step)
    with autocast():
        q, c = encoder(questions), encoder(candidates)
    return contrastive_loss(q, c, gold, passage, batches.encoder.temperature)


def distilled(
    encoder: Encoder, reader: CrossEncoder, batches: Batches, step: int, autocast: Autocast
) -> Tensor:
    """The loss of a step where only questions and answers are known (Izacard et al. 2022).

    BM25 proposes K passages; how likely the reader finds the right answer in each of them is what
    the encoder's similarities are to agree with. No label says which passage is the right one.
    """
    index, found = batches.candidates(step)
    device, settings = batches.device, batches.encoder
    with evaluating(reader), autocast():
        _, begin, end = reader(*batches.pairs(index, found))
        likelihood = answer_likelihood(begin, end, batches.places(index, found))
    different, where = np.unique(found, return_inverse=True)
    rows = torch.from_numpy(index).to(device)
    columns = torch.from_numpy(different).to(device)
    with autocast():
        q, c = encoder(cut(batches.q_stems[rows])), encoder(cut(batches.p_stems[columns]))
    q, c = F.normalize(q, dim=1), F.normalize(c, dim=1)
    each = c[torch.from_numpy(where.reshape(found.shape)).to(device)]  # (B, K, d)
    scores = (q[:, None] * each).sum(dim=-1) / settings.temperature
    return distillation_loss(scores, likelihood.view(found.shape), settings.target_temperature)
