"""Language models of names, one step better at a time (after Karpathy's makemore).

    python -m pytorch_mastery.makemore

A bigram by counting; the same model as a network of one layer, learned by gradient descent; and the
MLP of Bengio et al. 2003, which sees several letters through an embedding. The names are drawn
from a source whose entropy is known (`names`), so the table ends with the least possible loss.

Letters: N examples, K = 27 symbols, T context length, D embedding width, H hidden units.
"""

import argparse
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from labkit import exercise
from pytorch_mastery.names import SYMBOLS, K

if TYPE_CHECKING:
    from torch import Tensor, nn


@exercise(minutes=15)
def bigram_counts(names: Sequence[str]) -> "Tensor":
    """How often each symbol follows each: counts[b, c] (27, 27), float64.

    Symbol 0 is `.`, a to z are 1 to 26 (the order of `SYMBOLS`). A name counts with a `.` before
    its first letter and one after its last: "ab" gives (., a), (a, b) and (b, .).
    """
    import torch

    index = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    counts = torch.zeros(K, K, dtype=torch.float64)
    for name in names:
        symbols = f".{name}."
        for b, c in pairwise(symbols):
            counts[index[b], index[c]] += 1
    return counts


@exercise(minutes=10)
def bigram_probabilities(counts: "Tensor", smoothing: float) -> "Tensor":
    """P(c | b) from counts[b, c], each row summing to 1: (27, 27) -> (27, 27).

    `smoothing` > 0 is added to every count first, so that a pair which was never seen is unlikely
    but not impossible (a pair of probability 0 that occurs gives an infinite loss). The counts
    given are left as they are.
    """
    smoothed = counts + smoothing
    return smoothed / smoothed.sum(dim=1, keepdim=True)


def bigram_by_gradient(
    counts: "Tensor", smoothing: float, steps: int = 400, lr: float = 0.3
) -> "Tensor":
    """The same probabilities, found by gradient descent on the loss of a network of one layer.

    The network is logits = one_hot(b) @ W, that is, row b of W. Its loss is convex; the best W has
    softmax(W[b]) equal to the relative frequencies, which is what counting computes at once. Every
    distinct pair enters once, weighted by how often it occurs: the same sum as over all examples.
    """
    import torch

    weight = counts + smoothing
    W = torch.zeros_like(weight, requires_grad=True)
    optimizer = torch.optim.Adam([W], lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        loss = -(weight * W.log_softmax(dim=1)).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach().softmax(dim=1)


def examples(names: Sequence[str], context: int = 3) -> tuple["Tensor", "Tensor"]:
    """Every character of every name with the `context` symbols before it: x (N, T), y (N,).

    A name is preceded by as many `.` as the context is long; the `.` after its last letter is
    also predicted.
    """
    import torch

    index = {symbol: i for i, symbol in enumerate(SYMBOLS)}
    x, y = [], []
    for name in names:
        symbols = [0] * context + [index[s] for s in name] + [0]
        for t in range(context, len(symbols)):
            x.append(symbols[t - context : t])
            y.append(symbols[t])
    return torch.tensor(x), torch.tensor(y)


def mlp(
    context: int = 3, width: int = 16, hidden: int = 128, batch_norm: bool = False
) -> "nn.Sequential":
    """Bengio et al. 2003: embed T symbols, one hidden layer of tanh, logits: (N, T) -> (N, K).

    `batch_norm` puts the hand-written `BatchNorm` before the tanh.
    """
    from torch import nn

    from pytorch_mastery.batch_norm import BatchNorm

    return nn.Sequential(
        nn.Embedding(K, width),  # (N, T, D)
        nn.Flatten(),  # (N, T D)
        nn.Linear(context * width, hidden),
        BatchNorm(hidden) if batch_norm else nn.Identity(),
        nn.Tanh(),
        nn.Linear(hidden, K),
    )


def train_mlp(
    model: "nn.Module",
    names: Sequence[str],
    steps: int,
    seed: int,
    context: int = 3,
    lr: float = 0.01,
) -> "nn.Module":
    """Minimise the cross-entropy on batches of 512; the rate falls to 0. Returned in eval mode."""
    import torch
    import torch.nn.functional as F

    x, y = examples(names, context)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01, fused=True)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        batch = torch.randint(len(x), (512,), generator=generator)
        loss = F.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def table_loss(q: "Tensor", names: Sequence[str]) -> float:
    """Nats per character of the model q[..., c] with 1 or 2 symbols of context (27, [27,] 27)."""
    x, y = examples(names, context=2)
    p = q[x[:, 1], y] if q.ndim == 2 else q[x[:, 0], x[:, 1], y]
    return -p.double().log().mean().item()


def mlp_loss(model: "nn.Module", names: Sequence[str], context: int = 3) -> float:
    """Nats per character of an MLP, in eval mode."""
    import torch
    import torch.nn.functional as F

    x, y = examples(names, context)
    with torch.inference_mode():
        return F.cross_entropy(model(x), y).item()


def sample(
    model: "nn.Module", count: int, seed: int, context: int = 3, longest: int = 30
) -> list[str]:
    """Names from an MLP, one letter after another, cut at `longest` letters."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(count, context, dtype=torch.long)
    written = torch.zeros(count, 0, dtype=torch.long)
    with torch.inference_mode():
        for _ in range(longest):
            c = torch.multinomial(model(x).softmax(dim=1), 1, generator=generator)
            written, x = torch.cat([written, c], dim=1), torch.cat([x[:, 1:], c], dim=1)
    rows = ("".join(SYMBOLS[i] for i in row) for row in written.tolist())
    return [row.partition(".")[0] for row in rows]


def results(steps: int, seed: int) -> tuple[dict[str, float], "nn.Module"]:
    """Held-out loss of every model, in nats per character, and the trained MLP."""
    import torch

    from pytorch_mastery.names import entropy, source, splits

    train, _, test = splits(seed=seed)
    counts = bigram_counts(train)
    torch.manual_seed(seed)
    model = train_mlp(mlp(), train, steps, seed)
    return {
        "uniform": math.log(K),
        "bigram, by counting": table_loss(bigram_probabilities(counts, 0.1), test),
        "bigram, by gradient": table_loss(bigram_by_gradient(counts, 0.1), test),
        "MLP, 3 symbols of context": mlp_loss(model, test),
        "the source itself, on these names": table_loss(torch.tensor(source()), test),
        "entropy of the source, exact": entropy(),
    }, model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pytorch_mastery.makemore", description="Language models of names."
    )
    parser.add_argument("--steps", type=int, default=1500, help="of the MLP's training")
    parser.add_argument("--seed", type=int, default=0, help="of the names and of the weights")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error(f"--steps must be at least 1, got {args.steps}")
    losses, model = results(args.steps, args.seed)
    print("Loss on 5,000 held-out names, nats a character")
    for name, loss in losses.items():
        print(f"  {name:36} {loss:.4f}")
    print("Names that the MLP made up: " + ", ".join(sample(model, 10, args.seed)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
