"""What constrained decoding costs: the mask of a step, beside the model's step and beside asking a
regular-expression library about every token.

    python benchmarks/grammar_mask.py [--rows 64] [--width 128] [--layers 3] [--rounds 5]

The library is `regex`, whose partial matches say whether a text can still become a match. Both give
the same masks (asserted). Greedy, float32, random weights, the vocabulary of the small agent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import regex
import torch

from agents import questions, tokens
from agents.grammar import Automaton, Constrained, allowed, react_step
from agents.policy import make_model
from agents.toolset import TOOLS
from pretraining import generate

STEP = regex.compile(
    r"\nThought: [^\n]*\nAction: (?:calculate\[(?P<e>-?(?:\d+(?:\.\d+)?|\((?P<d>-?(?:\d+(?:\.\d+)?"
    r"|\((?P<c>-?\d+(?:\.\d+)?%?(?:(?:\*\*|[-+*/])-?\d+(?:\.\d+)?%?)*)\))%?(?:(?:\*\*|[-+*/])-?"
    r"(?:\d+(?:\.\d+)?|\((?&c)\))%?)*)\))%?(?:(?:\*\*|[-+*/])-?(?:\d+(?:\.\d+)?|\((?&d)\))%?)*)\]"
    r"|(?:search|finish)\[[^\n\[\]]+\])"
)
"""The same language as `react_step(TOOLS)`, written by hand."""
WRITTEN = "\nThought: This is a calculation.\nAction: calculate[2*(31+4"


def seconds_of(run: Callable[[], object], rounds: int, calls: int = 1) -> list[float]:
    """Seconds of one call, `rounds` times, after one call to warm up."""
    run()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(calls):
            run()
        times.append((time.perf_counter() - begun) / calls)
    return times


def show(name: str, times: list[float]) -> None:
    """One line: the median and the range, in milliseconds."""
    low, middle, high = (1000 * f(times) for f in (min, statistics.median, max))
    print(f"{name:44} {middle:9.3f} ms ({low:.3f} to {high:.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 64), ("width", 128), ("layers", 3), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    calls = [f"{tool}[" for tool in (*TOOLS, "finish")]
    tokenizer = tokens.build(tokens.vocabulary(questions.TEXTS, calls))
    pieces, end = tokens.pieces_of(tokenizer), tokenizer.eos_token_id
    make = partial(Automaton, react_step(TOOLS), pieces, end)
    automaton = make()
    print(f"{len(pieces)} tokens, {len(automaton.next_state)} states")
    show("making the automaton, once", seconds_of(make, args.rounds))

    state = torch.zeros(1, dtype=torch.int64)
    (row,) = tokens.encode(tokenizer, [WRITTEN])
    for token in row:
        state = automaton.next_state[state, token]
    ours = partial(allowed, automaton.next_state, automaton.distance, state.expand(args.rows), 64)

    def by_library() -> list[bool]:
        return [
            bool(STEP.fullmatch(WRITTEN + piece, partial=True)) if piece else False
            for piece in pieces
        ]

    assert ours()[0].tolist() == by_library(), "the masks differ"
    mask = seconds_of(ours, args.rounds, 100)
    asked = seconds_of(by_library, args.rounds)
    show(f"mask of {args.rows} rows by the automaton", mask)
    show("mask of one row by the library", asked)
    ratios = [args.rows * b / a for a, b in zip(mask, asked, strict=True)]
    spread = f"({min(ratios):,.0f} to {max(ratios):,.0f})"
    print(f"ratio per row: {statistics.median(ratios):,.0f} {spread}")

    model = make_model(len(pieces), 256, args.width, args.layers, 4).eval()
    prompt = torch.randint(3, len(pieces), (args.rows, 40))
    count = 32

    def free() -> object:
        return generate(model, prompt, count, temperature=0)

    def constrained() -> object:
        chooser = Constrained(automaton, args.rows, count)
        return generate(model, prompt, count, temperature=0, chooser=chooser)

    one, two = seconds_of(free, args.rounds), seconds_of(constrained, args.rounds)
    show(f"{count} tokens of {args.rows} rows, free", one)
    show(f"{count} tokens of {args.rows} rows, under the grammar", two)
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    print(f"ratio: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
