"""The loss of the answers, and the log-probability of whole answers.

    L = -1/n sum over answer tokens  log p(y_t | prompt, y_<t)       Ouyang et al. 2022, section 3.5

The logits are the largest tensor in a small model's step. They are computed only where an answer
token is predicted.

Letters: R rows, T tokens in a row, n answer tokens, D width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.chat import IGNORE
from alignment.packing import Batch
from labkit import exercise


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states (R, T, D) of a model of transformers, under the batch's own mask.

    The full mask is passed. transformers can also find packed examples by their positions, but only
    when it is given no mask *and* keeps no cache, and otherwise ignores them without a warning.
    """
    states: Tensor = model.base_model(
        input_ids=batch.tokens,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    return states


@exercise(minutes=15)
def predictions(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The states that predict a learned token, and the token that each predicts.

    The state at position t predicts the label at position t + 1, so the last state predicts
    nothing and the first label is predicted by nothing.

    Args:
        states: (R, T, D).
        labels: int64 (R, T), IGNORE where nothing is learned.
    Returns:
        States (n, D) and labels (n,), row by row, where n is the number of labels that are learned.
    """
    target = labels[:, 1:]
    learned = target != IGNORE
    return states[:, :-1][learned], target[learned]


def token_nll(model: Any, batch: Batch) -> Tensor:
    """Negative log-likelihood of each learned token in nats, (n,), row by row."""
    states, target = predictions(hidden_states(model, batch), batch.labels)
    logits = model.get_output_embeddings()(states)  # (n, V)
    return F.cross_entropy(logits.float(), target, reduction="none")


def response_loss(model: Any, batch: Batch) -> Tensor:
    """Mean negative log-likelihood of the learned tokens of a batch, in nats per token."""
    return token_nll(model, batch).mean()


def sequence_logps(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each row's answer, (R,): the sum over its tokens, not the mean.

    The batch has one example per row. DPO compares whole answers, whatever their length.
    """
    learned = batch.labels[:, 1:] != IGNORE
    logps = torch.zeros(learned.shape, device=batch.tokens.device)
    logps[learned] = -token_nll(model, batch)
    return logps.sum(dim=1)
