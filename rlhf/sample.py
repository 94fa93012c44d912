"""Answers of a model to prompts of any lengths, by week 7's cached sampler.

Letters: N prompts, T tokens of prompt and answer.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch

from pretraining import GPT, generate
from rlhf.preferences import Rows, collate


def respond(
    model: GPT,
    prompts: Sequence[list[int]],
    count: int,
    end: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
) -> Rows:
    """One answer to each prompt, of at most `count` tokens with the end: rows (N, T).

    Prompts of equal length are answered in one batch, so no prompt is padded: padding on the left
    would shift learned positions. At temperature 1 the answers are samples of the policy itself. A
    long prompt gets fewer tokens, as many as the context leaves.
    """
    device = model.embedding.weight.device
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    answers: list[list[int]] = [[] for _ in prompts]
    for length, group in sorted(by_length.items()):
        room = min(count, model.shape.context - length)
        batch = torch.tensor([prompts[index] for index in group], device=device)
        drawn = generate(model, batch, room, temperature, generator=generator, end=end).tolist()
        for index, answer in zip(group, drawn, strict=True):
            stop = answer.index(end) + 1 if end in answer else room
            answers[index] = answer[:stop]
    return collate(prompts, answers, device)


def texts_of(rows: Rows, tokenizer: object, end: int) -> list[tuple[str, bool]]:
    """The answer of each row as a text, without the end, and whether it ended."""
    found = []
    for tokens, mask in zip(rows.tokens, rows.mask, strict=True):
        answer = tokens[mask].tolist()
        ended = answer[-1] == end
        text = tokenizer.decode(answer[:-1] if ended else answer)  # type: ignore[attr-defined]
        found.append((text.strip(), ended))
    return found
