"""What a run of this week reports.

perplexity_increase        int8 against float32, on the validation text (%)
SCHEME_increase            the same for the other schemes
gptq_gain                  increase with rounding to 4 bits, minus that with GPTQ (points)
speedup                    tokens a second, engine over Hugging Face: the smallest of the batches
speedup_N                  the same for batch N
same_greedy                greedy answers of the engine that equal the plain sampler's (%)

samples/schemes.txt has perplexity and bytes of every scheme, samples/schemes.png shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit import Run


def increases(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metrics of the schemes, from perplexities by scheme; `float32` is the model as it was."""
    exact = found["float32"]["perplexity"]
    rise = {name: 100 * (each["perplexity"] / exact - 1) for name, each in found.items()}
    metrics = {"perplexity": exact}
    for name, value in rise.items():
        if name != "float32":
            metrics["perplexity_increase" if name == "int8" else f"{name}_increase"] = value
    if {"int4", "gptq"} <= rise.keys():
        metrics["gptq_gain"] = rise["int4"] - rise["gptq"]
    return metrics


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Perplexity and bytes of every scheme, in columns."""
    exact = found["float32"]
    lines = [f"{'scheme':12} {'perplexity':>10} {'increase':>9} {'bytes':>12} {'of float32':>10}"]
    for name, each in found.items():
        rise = 100 * (each["perplexity"] / exact["perplexity"] - 1)
        lines.append(
            f"{name:12} {each['perplexity']:10.3f} {rise:+8.2f}% {each['bytes']:12,.0f} "
            f"{each['bytes'] / exact['bytes']:9.1%}"
        )
    return "\n".join(lines) + "\n"


def report(
    run: Run, found: Mapping[str, Mapping[str, float]], batches: Sequence[int],
    rates: Sequence[tuple[float, float]], same: float,
) -> dict[str, float]:  # fmt: skip
    """The run's metrics; writes and draws what samples/ has."""
    from systems.figures import size_and_quality

    metrics = increases(found)
    for batch, (ours, theirs) in zip(batches, rates, strict=True):
        metrics |= {f"speedup_{batch}": ours / theirs, f"tokens_per_second_{batch}": ours}
    metrics["speedup"] = min(metrics[f"speedup_{batch}"] for batch in batches)
    metrics["same_greedy"] = 100 * same
    if run.writes:
        folder = run.dir / "samples"
        folder.mkdir(exist_ok=True)
        (folder / "schemes.txt").write_text(table(found), encoding="utf-8")
        points = {n: (each["bytes"] / 1e6, each["perplexity"]) for n, each in found.items()}
        exact = points.pop("float32")[1]
        run.figure("schemes", size_and_quality(points, exact))
    return metrics
