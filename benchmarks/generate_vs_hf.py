"""Writing 256 tokens: with the KV cache, without it, and by Hugging Face's generate.

    python benchmarks/generate_vs_hf.py [--new 256] [--prompt 16] [--batch 1] [--rounds 5]
                                        [--width 192] [--layers 4] [--heads 4] [--threads 1]

Greedy, float32, the same prompt and the same weights for all three, in turns: theirs is the model
that `to_huggingface` gives, with its cache on. All three must write the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from pretraining import GPT, Shape, generate, to_huggingface

VOCABULARY = 4096


def random_model(shape: Shape, architecture: Literal["gpt2", "modern"]) -> GPT:
    """Weights large enough that the likeliest token is well ahead of the next, whatever rounds."""
    torch.manual_seed(0)
    model = GPT(shape, architecture).eval()
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=2 * shape.width**-0.5)
    return model


def compare(architecture: Literal["gpt2", "modern"], args: argparse.Namespace) -> None:
    """Print seconds, rates and ratios for one architecture."""
    shape = Shape(VOCABULARY, args.prompt + args.new, args.width, args.layers, args.heads)
    model = random_model(shape, architecture)
    theirs = to_huggingface(model)
    prompt = torch.randint(VOCABULARY, (args.batch, args.prompt))
    mask = torch.ones_like(prompt)

    def by_generate(count: int) -> Tensor:
        with torch.no_grad():
            row = theirs.generate(
                prompt, attention_mask=mask, max_new_tokens=count, do_sample=False, use_cache=True,
                pad_token_id=0,
            )  # fmt: skip
        return row[:, args.prompt :]

    ways: dict[str, Callable[[int], Tensor]] = {
        "with the cache": lambda count: generate(model, prompt, count, temperature=0),
        "without": lambda count: generate(model, prompt, count, temperature=0, use_cache=False),
        "Hugging Face": by_generate,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(8)
    for turn in range(args.rounds):
        written = {}
        for name in sorted(ways, reverse=turn % 2 == 1):
            begun = time.perf_counter()
            written[name] = ways[name](args.new)
            seconds[name].append(time.perf_counter() - begun)
        for name, tokens in written.items():
            assert torch.equal(tokens, written["without"]), f"{name} wrote something else"
    print(f"{architecture}: {model.count_parameters():,} parameters, batch {args.batch}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        spread = f"({min(times):.3f} to {max(times):.3f})"
        print(
            f"  {name:15} {middle:7.3f} s {spread} {args.batch * args.new / middle:8.0f} tokens/s"
        )
    for name in ("without", "Hugging Face"):
        ratios = [b / a for a, b in zip(seconds["with the cache"], seconds[name], strict=True)]
        print(
            f"  {args.new} new tokens: the cache is {statistics.median(ratios):.2f} times as fast "
            f"as {name} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = {"new": 256, "prompt": 16, "batch": 1, "rounds": 5, "width": 192, "layers": 4,
                "heads": 4, "threads": 1}  # fmt: skip
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    compare("gpt2", args)
    compare("modern", args)


if __name__ == "__main__":
    main()
