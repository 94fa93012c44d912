"""Generation with and without the KV cache: seconds for a number of new tokens.

    python benchmarks/kv_cache.py [--new 256] [--prompt 16] [--batch 1] [--rounds 3] [--threads 1]

Week 5's Transformer at random weights (d_model 256, 8 heads, 4 layers, 512 symbols), greedy, the
same prompt and weights on both sides, in turns; both must write the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from attention import Transformer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    defaults = {"new": 256, "prompt": 16, "batch": 1, "rounds": 3, "threads": 1}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Transformer(512, 256, 8, 4).eval()
    prompt = torch.randint(512, (args.batch, args.prompt))
    model.generate(prompt, 8)
    model.generate(prompt, 8, use_cache=False)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(args.rounds):
        written = {}
        for use_cache in (True, False) if turn % 2 == 0 else (False, True):
            begun = time.perf_counter()
            written[use_cache] = model.generate(prompt, args.new, use_cache)
            seconds[use_cache].append(time.perf_counter() - begun)
        same = (written[True] == written[False]).float().mean().item()
        if same < 1:
            print(f"round {turn}: only {100 * same:.1f} % of the tokens agree")
    for use_cache, times in seconds.items():
        name = "with the cache" if use_cache else "without"
        middle = statistics.median(times)
        rate = args.batch * args.new / middle
        spread = f"({min(times):.3f} to {max(times):.3f})"
        print(f"{name:15} {middle:7.3f} s {spread} {rate:8.0f} tokens/s")
    ratios = [b / a for a, b in zip(seconds[True], seconds[False], strict=True)]
    print(
        f"{args.new} new tokens, batch {args.batch}: {statistics.median(ratios):.1f} times faster "
        f"with the cache ({min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
