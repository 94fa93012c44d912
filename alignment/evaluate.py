"""The effect of the tuning: held-out likelihood, followed instructions, and three checks.

response_nll   nats per answer token (end of text included) on held-out instructions
following      share of held-out `commands` answered exactly right by greedy decoding
stops          share of these answers that end with the end of text
loss_gap       loss of a batch as in the training loop, minus the NLL of the same answers with one
               example per row: not 0 means that the loop does not train what is measured
merge_gap      response NLL of the merged model read back from disk, minus that of base plus
               adapter: not 0 means that they are not the same model
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignment.chat import Example, encode, labels, prompt_text, question, tokens_of
from alignment.loss import token_nll
from alignment.packing import collate
from labkit.learning.modes import evaluating

if TYPE_CHECKING:
    from labkit.data import Instruction


def response_nll(model: Any, examples: Sequence[Example], batch_size: int = 32) -> float:
    """Mean NLL in nats of all answer tokens of `examples`, each alone in its row."""
    total, count = 0.0, 0
    by_length = sorted(examples, key=lambda example: len(example.tokens))
    for start in range(0, len(by_length), batch_size):
        part = by_length[start : start + batch_size]
        width = len(part[-1].tokens)
        batch = collate(part, [labels(e) for e in part], width, False, device=model.device)
        with evaluating(model):
            nll = token_nll(model, batch)
        total, count = total + nll.double().sum().item(), count + len(nll)
    return total / count


def answers(
    model: Any, tokenizer: Any, rows: "Sequence[Instruction]", longest: int, batch_size: int = 64
) -> list[tuple[str, bool]]:
    """Greedy answers of at most `longest` tokens, and whether each ended with the end of text.

    Prompts are padded on the left, so that every answer begins where its prompt ends. A prompt that
    leaves no room for `longest` tokens in the context is skipped, and its answer is ("", False).
    """
    limit = model.config.max_position_embeddings - longest
    prompts = tokens_of([prompt_text(row) for row in rows], tokenizer)
    found: list[tuple[str, bool]] = [("", False)] * len(rows)
    short = [i for i, prompt in enumerate(prompts) if len(prompt) <= limit]
    order = sorted(short, key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        padded = tokenizer.pad(
            {"input_ids": [prompts[i] for i in part]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        with evaluating(model):
            out = model.generate(**padded, max_new_tokens=longest, do_sample=False, num_beams=1)
        for index, tokens in zip(
            part, out[:, padded["input_ids"].shape[1] :].tolist(), strict=True
        ):
            ended = tokenizer.eos_token_id in tokens
            kept = tokens[: tokens.index(tokenizer.eos_token_id)] if ended else tokens
            found[index] = (tokenizer.decode(kept), ended)
    return found


def following(
    model: Any, tokenizer: Any, rows: "Sequence[Instruction]"
) -> tuple[dict[str, float], list[str]]:
    """Shares (%) of `rows` answered exactly right, and of answers that end; and the answers."""
    longest = max(map(len, tokens_of([row.output for row in rows], tokenizer))) + 4
    found = answers(model, tokenizer, rows, longest)
    right = sum(text == row.output for (text, _), row in zip(found, rows, strict=True))
    stopped = sum(ended for _, ended in found)
    shares = {"following": 100 * right / len(rows), "stops": 100 * stopped / len(rows)}
    return shares, [text for text, _ in found]


def reloaded(model: Any, tokenizer: Any, folder: Path) -> Any:
    """A model written to `folder` with its tokenizer, and read back."""
    from transformers import AutoModelForCausalLM

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(model.device)


def preference_pairs(
    rows: "Sequence[Instruction]", tokenizer: Any, count: int, context: int
) -> list[tuple[Example, Example]]:
    """For each of the first `count` rows its answer, and as the worse one the same answer twice.

    Pairs with more than `context` tokens on either side are left out.
    """
    pairs = []
    for row in rows[:count]:
        worse = replace(row, output=f"{row.output} {row.output}")
        sides, dropped = encode([row, worse], tokenizer, context)
        if not dropped:
            pairs.append((sides[0], sides[1]))
    return pairs


def transcript(rows: "Sequence[Instruction]", columns: Mapping[str, Sequence[str]]) -> str:
    """Instructions with the answers of several models, as text to read."""
    parts = []
    for i, row in enumerate(rows):
        lines = [question(row), *(f"  [{name}] {texts[i]}" for name, texts in columns.items())]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
