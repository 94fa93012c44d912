"""The end of a run: measure everything on held-out instructions, write it and publish it."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from alignment.adapter import save_adapter
from alignment.chat import Example
from alignment.dpo import first_step
from alignment.evaluate import (
    answers,
    following,
    preference_pairs,
    reloaded,
    response_nll,
    transcript,
)
from alignment.lora import lora_layers
from alignment.mixture import Mixture
from alignment.model import merged, plain, trained_share
from labkit import Run
from labkit.learning.modes import evaluating

SHOWN = 8
"""Instructions of each set whose answers are written into samples/answers.txt."""
SHOWN_TOKENS = 48
"""Maximal number of tokens of such an answer."""
DPO_PAIRS, DPO_BETA, DPO_LR = 32, 0.1, 1e-4
"""The first step of DPO: number of training pairs, and of held-out pairs."""


def compared(base: float, nll: dict[str, float]) -> dict[str, float]:
    """The NLLs, and how much of full fine-tuning's gain LoRA kept where both were trained."""
    first = next(iter(nll))
    found = {"response_nll": nll[first], "base_nll": base, "gain": base - nll[first]}
    if {"lora", "full"} <= nll.keys():
        gain_kept = 100 * (base - nll["lora"]) / (base - nll["full"])
        found |= {"full_nll": nll["full"], "gain_kept": gain_kept}
    return found


def save_model(model: Any, folder: Path) -> None:
    """The adapter of a model, ours or peft's, in peft's format; nothing for a plain model."""
    if hasattr(model, "get_base_model"):
        model.save_pretrained(str(folder), save_embedding_layers=False)  # A and B alone
    elif lora_layers(model):
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(model, folder)


def report(
    run: Run,
    base: Any,
    models: dict[str, Any],
    tokenizer: Any,
    data: Mixture,
    batch: Sequence[Example],
    batch_loss: Callable[[Any], Tensor],
    tests: int,
) -> dict[str, float]:
    """Metrics of the models, the first of which is the one that is published.

    Args:
        batch, batch_loss: examples of one training batch, and its loss as the loop computes it.
        tests: held-out examples and commands, at most.
    """
    tuned = next(iter(models.values()))
    held_out = data.test[:tests]
    nll = {name: response_nll(plain(model), held_out) for name, model in models.items()}
    metrics = compared(response_nll(base, held_out), nll)
    metrics |= {"trained_share": trained_share(tuned)}
    metrics |= followed(run, base, plain(tuned), tokenizer, data, tests)
    with evaluating(tuned):
        gap = batch_loss(tuned).item() - response_nll(plain(tuned), batch)
    metrics |= {"loss_gap": abs(gap)}
    again = published(run, tuned, tokenizer)
    metrics |= {"merge_gap": abs(response_nll(again, held_out) - metrics["response_nll"])}
    pairs = [
        preference_pairs(rows, tokenizer, DPO_PAIRS, data.context)
        for rows in (data.commands.train, data.commands.test)
    ]
    metrics |= first_step(again, pairs[0], pairs[1], DPO_BETA, DPO_LR, run.device)
    suffixes = [f"_{name}" for name in models] if len(models) > 1 else [""]
    run.plot("loss", *(f"train/loss{suffix}" for suffix in suffixes))
    if "trl" not in models:
        run.plot("valid", *(f"valid/nll{suffix}" for suffix in suffixes))
    return metrics


def followed(
    run: Run, base: Any, model: Any, tokenizer: Any, data: Mixture, tests: int
) -> dict[str, float]:
    """Share of held-out commands answered exactly right; writes samples/answers.txt."""
    commands, others = data.commands.test[:tests], data.test_rows[:SHOWN]
    after, tuned = following(model, tokenizer, commands)
    before, untuned = following(base, tokenizer, commands)
    right = [row.output for row in commands]
    shown = transcript(commands[:SHOWN], {"right": right, "base": untuned, "tuned": tuned})
    said = {
        name: [text for text, _ in answers(each, tokenizer, others, SHOWN_TOKENS)]
        for name, each in (("base", base), ("tuned", model))
    }
    if run.is_main:
        (run.dir / "samples").mkdir(exist_ok=True)
        file = run.dir / "samples" / "answers.txt"
        file.write_text(f"{shown}\n{transcript(others, said)}", encoding="utf-8")
    return after | {"base_following": before["following"]}


def published(run: Run, tuned: Any, tokenizer: Any) -> Any:
    """Save the adapter in the run's folder and the merged model as the artifact; the merged model,
    read back from disk.
    """
    if run.is_main:
        save_model(tuned, run.dir / "adapter")
    with tempfile.TemporaryDirectory() as folder:
        again = reloaded(merged(tuned), tokenizer, Path(folder))

        def save(place: Path) -> None:
            shutil.copytree(folder, place, dirs_exist_ok=True)

        run.publish(save)
    return again
