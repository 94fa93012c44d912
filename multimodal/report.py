"""What a run leaves behind: metrics, and pictures of what it finds."""

from __future__ import annotations

import torch

from labkit import Run
from multimodal import figures, scenes
from multimodal.evaluate import in_split, measure
from multimodal.pipeline import Pipeline
from multimodal.pool import Pool, Pools, flat_captions

QUERIES, SHOWN = 8, 6
"""Captions in the picture of rankings, and pictures for each."""
MOST = 16
"""Pictures, and captions, in the heat map."""


def report(run: Run, pipeline: Pipeline, pools: Pools) -> dict[str, float]:
    """Draw samples/rankings.png and samples/similarities.png; returns the headline metrics."""
    shown = pools.test if pools.test_pairs is None else pools.test_pairs
    draw_rankings(run, pipeline, shown)
    draw_similarities(run, pipeline, pools.test)
    run.note(test_pictures=len(pools.test), test_captions=len(flat_captions(pools.test)[0]))
    return measure(pipeline, pools)


def draw_rankings(run: Run, pipeline: Pipeline, pool: Pool) -> None:
    """The best pictures of a gallery for some of its captions, spread over it."""
    count = min(QUERIES, len(pool))
    asked = torch.arange(count) * (len(pool) // count)
    queries = [pool.captions[i][0] for i in asked.tolist()]
    scores = pipeline.embed_texts(queries, cut=True) @ pipeline.embed_pictures(pool.pictures).T
    best = scores.topk(min(SHOWN, len(pool)), dim=1).indices.cpu()  # (count, SHOWN)
    right = (best == asked[:, None]).numpy()
    run.figure("rankings", figures.rankings(queries, pool.pictures[best], right))


def draw_similarities(run: Run, pipeline: Pipeline, pool: Pool) -> None:
    """Cosines of pictures and captions: of the combinations held out, or of the first pictures."""
    chosen = torch.arange(len(pool))[: pool.gallery]
    if pool.scenes is not None:
        chosen = chosen[in_split(pool, "test")[chosen]]
    chosen = chosen[:MOST]
    captions = [pool.captions[i][0] for i in chosen.tolist()]
    text = pipeline.embed_texts(captions, cut=True)
    cosines = (pipeline.embed_pictures(pool.pictures[chosen]) @ text.T).cpu().numpy()
    names = captions
    if pool.scenes is not None:
        names = [scenes.name_of(int(c)) for c in pool.scenes.first[chosen.numpy()]]
    names = [name if len(name) < 28 else f"{name[:25]}..." for name in names]
    run.figure("similarities", figures.similarities(cosines, names, names))
