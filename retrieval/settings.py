"""The settings of the encoder, of the reader, and of the search."""

from dataclasses import dataclass
from typing import Annotated

from labkit.config.bounds import Bounds, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Share


@dataclass
class EncoderSettings:
    """The dual encoder."""

    buckets: Annotated[int, Bounds(least=2)] = 65_536
    """Rows of its table, into which the stems of words are hashed."""
    width: PositiveInt = 768
    """Dimensions of a vector."""
    layers: NonNegativeInt = 2
    """Layers of week 6's encoder; 0 is a bag of stems."""
    heads: PositiveInt = 8
    """Attention heads of a layer."""
    dropout: Share = 0.1
    """Share of words left out in training, and of activations inside the layers."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    batch_size: PositiveInt = 128
    """Questions a step."""
    negatives: NonNegativeInt = 1
    """Hard negatives of a question: passages that BM25 finds and that have no right answer."""
    candidates: PositiveInt = 8
    """method=distill: passages of a question, found by BM25, over which the reader's posterior is
    taken."""
    temperature: PositiveFloat = 0.05
    """What cosines are divided by."""
    target_temperature: PositiveFloat = 1.0
    """method=distill: what the reader's log-likelihoods are divided by."""


@dataclass
class ReaderSettings:
    """The cross-encoder, which reranks and reads."""

    words: PositiveInt = 20_000
    """Words of its vocabulary."""
    embedding: PositiveInt = 128
    """Dimensions of a word."""
    width: PositiveInt = 256
    """Channels of its convolutions."""
    blocks: PositiveInt = 6
    """Convolutions."""
    dropout: Share = 0.2
    """Share of activations left out in training."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    batch_size: PositiveInt = 32
    """Questions a step."""
    negatives: PositiveInt = 3
    """Passages without the answer beside the one with it."""
    longest: PositiveInt = 12
    """Words of an answer at most."""


@dataclass
class SearchSettings:
    """What is done with a question once all is trained."""

    depth: PositiveInt = 100
    """Passages taken from each of the two searches."""
    rerank: PositiveInt = 10
    """Passages that the cross-encoder reranks."""
    read: PositiveInt = 5
    """Passages from which an answer is read, after reranking."""
    questions: PositiveInt = 1000
    """Questions on which reranking and answers are measured, at most; the searches alone are
    measured on all."""
    computed: Fraction = 0.2
    """Share of the flat index's comparisons that the inverted file may take."""
