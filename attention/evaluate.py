"""What was learned, and whether mask and cache are right: exact match, measured in three ways.

    teacher forced    the likeliest token at each place, given the right ones before it
    uncached          written by the model itself, the whole sequence computed again for each token
    cached            the same, with the KV cache

A row is right when all its answers are. Greedy writing goes wrong exactly where teacher forcing
first does, so without a bug the three are equal, whatever was learned.
"""

import statistics

import torch
from torch import Tensor

from attention.attention import entropy
from attention.figures import cost_figure, costs, map_figure
from attention.model import Transformer
from attention.tasks import Sequences
from labkit import Run


def teacher_forced(model: Transformer, rows: Tensor, data: Sequences) -> Tensor:
    """1.0 where every answer of a row is the likeliest given the right ones before it, (N,)."""
    with torch.no_grad():
        guess = model(rows[:, :-1])[:, data.prompt - 1 :].argmax(dim=-1)
    return (guess == rows[:, data.prompt :]).all(dim=1).float()


def relative_entropy(model: Transformer, tokens: Tensor) -> Tensor:
    """Mean entropy of all queries' weights, as a share of what equal weights would have.

    Query i may attend to i + 1 keys, so the most is ln(i + 1); query 0 has no choice.
    """
    with torch.no_grad():
        found = entropy(model.maps(tokens)[..., 1:, :])
    most = torch.arange(2, tokens.shape[1] + 1, device=tokens.device).log()
    return (found / most).mean()


def report(
    cost_lengths: list[int],
    run: Run,
    model: Transformer,
    data: Sequences,
    tests: dict[str, Tensor],
) -> dict[str, float]:
    """Metrics from the test rows of each task, (N, T); maps, curves and costs into samples/."""
    model.eval()
    written: dict[str, list[float]] = {"cached": [], "uncached": [], "forced": []}
    matches: dict[str, float] = {}
    for task, rows in tests.items():
        prompt, truth = rows[:, : data.prompt], rows[:, data.prompt :]
        for name, use_cache in (("cached", True), ("uncached", False)):
            right = (model.generate(prompt, data.length, use_cache) == truth).all(dim=1)
            written[name].append(100 * right.float().mean().item())
        written["forced"].append(100 * teacher_forced(model, rows, data).mean().item())
        matches[f"{task}_match"] = written["cached"][-1]
        with torch.no_grad():
            maps = model.maps(rows[:1, :-1])[:, 0]  # (layers, H, T, T)
        labels = [data.label(int(token)) for token in rows[0]]
        run.figure(f"attention_{task}", map_figure(maps, labels, data.length))
    cached, uncached, forced = (statistics.mean(values) for values in written.values())
    found = costs(cost_lengths, run.device)
    run.plot("loss", "train/loss", logy=True)
    run.plot("valid", *(f"valid/{task}" for task in tests))
    run.figure("cost", cost_figure(found))
    gaps = {"teacher_gap": forced - uncached, "cache_gap": uncached - cached}
    ratio = found["naive"][-1][1] / found["tiled"][-1][1]
    return {"exact_match": cached} | matches | gaps | {"memory_ratio": ratio}
