"""Classification without training: a class is its name in a sentence (Radford et al. 2021, section
3.1.4).

Letters: K classes, P prompts of a class, d dimensions of the common space.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from labkit import exercise


@exercise(minutes=15)
def class_embeddings(prompts: Tensor) -> Tensor:
    """One vector for each class from the embeddings of several prompts: the ensemble of section
    3.1.4, in the space of embeddings, which costs nothing when classifying.

    Each prompt is brought to unit length, so that none counts more than another; the class is their
    mean, and that is brought to unit length too, so that no class has an advantage.

    Args:
        prompts: (K, P, d), of any length.
    Returns:
        (K, d), of unit length.
    """
    return F.normalize(F.normalize(prompts, dim=-1).mean(dim=1), dim=-1)


def classify(image: Tensor, classes: Tensor) -> Tensor:
    """The nearest class by cosine: (N, d) and (K, d) of unit length -> int64 (N,)."""
    return (F.normalize(image, dim=1) @ classes.T).argmax(dim=1)
