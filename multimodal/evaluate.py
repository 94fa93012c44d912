"""Measures: recall in both directions, word order, and classification by prompts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal import scenes
from multimodal.pipeline import Pipeline
from multimodal.pool import Pool, Pools, flat_captions
from multimodal.recall import both_ways, recall_at_k
from multimodal.zero_shot import class_embeddings, classify


class Places(NamedTuple):
    """Where the right item was placed, for each query of a pool."""

    text: Tensor
    """int64 (M,): the picture of each caption."""
    image: Tensor
    """int64 (N,): the best caption of each picture."""
    owner: Tensor
    """int64 (M,): the picture of each caption."""

    def recalls(self, k: int, among: Tensor | None = None) -> tuple[float, float]:
        """Recall at k in %, text to image and image to text; of the pictures `among`, bool (N,),
        and their captions alone, if given. The galleries stay whole.
        """
        if among is None:
            return recall_at_k(self.text, k), recall_at_k(self.image, k)
        among = among.to(self.image.device)
        return recall_at_k(self.text[among[self.owner]], k), recall_at_k(self.image[among], k)


def places(pipeline: Pipeline, pool: Pool) -> Places:
    """The places of all queries, each inside its own gallery."""
    image = pipeline.embed_pictures(pool.pictures)
    flat, owner = flat_captions(pool)
    text, owner = pipeline.embed_texts(flat, cut=True), owner.to(image.device)
    size = pool.gallery or len(pool)
    found = []
    for start in range(0, len(pool), size):
        inside = (owner >= start) & (owner < start + size)
        scores = image[start : start + size] @ text[inside].T
        found.append(both_ways(scores, owner[inside] - start))
    each = [torch.cat(parts) for parts in zip(*found, strict=True)]
    return Places(each[0], each[1], owner)


def in_split(pool: Pool, *splits: scenes.Split) -> Tensor:
    """Which pictures, of scenes with one object, show a combination of these splits: bool (N,)."""
    assert pool.scenes is not None
    return torch.from_numpy(np.isin(pool.scenes.first, scenes.combinations(*splits)))


def order_accuracy(pipeline: Pipeline, pool: Pool) -> float:
    """Share in % of scenes with two objects that are nearer to their caption than to the caption
    of the same words with the objects exchanged. A bag of words cannot tell these apart: 50 %.
    """
    assert pool.scenes is not None
    image = pipeline.embed_pictures(pool.pictures)
    right, wrong = (
        pipeline.embed_texts([texts[0] for texts in scenes.captions_of(each)])
        for each in (pool.scenes, pool.scenes.swapped())
    )
    return 100 * float(((image * right).sum(1) > (image * wrong).sum(1)).double().mean())


def zero_shot(pipeline: Pipeline, pool: Pool, among: Tensor) -> dict[str, float]:
    """Accuracy in % for the colour and for the shape of pictures with one object, by prompts.

    The prompts of a colour name it with every shape, those of a shape with every colour.
    """
    assert pool.scenes is not None
    image = pipeline.embed_pictures(pool.pictures[among])
    combination = torch.from_numpy(pool.scenes.first)[among].to(image.device)
    prompts = [scenes.with_article(scenes.name_of(c)) for c in range(scenes.COMBINATIONS)]
    table = pipeline.embed_texts(prompts).unflatten(0, (8, 8))  # (colours, shapes, d)
    colour = classify(image, class_embeddings(table)) == combination // 8
    shape = classify(image, class_embeddings(table.transpose(0, 1))) == combination % 8
    return {
        "colour_accuracy": 100 * float(colour.double().mean()),
        "shape_accuracy": 100 * float(shape.double().mean()),
    }


def look(pipeline: Pipeline, pools: Pools) -> dict[str, float]:
    """Recall on the validation pool, in %; of scenes also for the combinations not trained on."""
    found = places(pipeline, pools.valid)
    text, image = found.recalls(1)
    metrics = {"valid_recall_at_1": text, "valid_image_recall_at_1": image}
    if pools.valid.scenes is not None:
        held_out = found.recalls(1, in_split(pools.valid, "valid"))
        metrics["valid_held_out_recall_at_1"] = min(held_out)
    return metrics


def measure(pipeline: Pipeline, pools: Pools) -> dict[str, float]:
    """The headline metrics, on the test pools and, marked `valid_`, on the validation pool."""
    found = places(pipeline, pools.test)
    metrics = {}
    for k in (1, 5):
        metrics[f"recall_at_{k}"], metrics[f"image_recall_at_{k}"] = found.recalls(k)
    if pools.test.scenes is not None and pools.test_pairs is not None:
        held_out = in_split(pools.test, "test")
        text, image = found.recalls(1, held_out)
        metrics |= {"held_out_recall_at_1": text, "held_out_image_recall_at_1": image}
        pairs = places(pipeline, pools.test_pairs).recalls(1)
        metrics |= {"pair_recall_at_1": pairs[0], "pair_image_recall_at_1": pairs[1]}
        metrics["order_accuracy"] = order_accuracy(pipeline, pools.test_pairs)
        metrics |= zero_shot(pipeline, pools.test, held_out)
    return metrics | look(pipeline, pools)
