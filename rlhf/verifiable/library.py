"""The same training the library's way: trl's GRPOTrainer, joined to the run.

The model, the questions of each step, the judge, the optimiser and its rate are ours. Drawing
answers, advantages and the loss are trl's.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from labkit import Run
from labkit.data import batch_indices
from labkit.run.trainer import stream, train_joined
from pretraining import GPT, from_huggingface, to_huggingface
from rlhf.verifiable.arithmetic import Addition, Judge, score
from rlhf.verifiable.settings import GRPOSettings
from rlhf.verifiable.weights import tokenizer


def make_trainer(
    model: Any,
    task: Addition,
    judge: Judge,
    settings: GRPOSettings,
    steps: int,
    dataset: Any,
    device: torch.device,
    folder: str,
    seed: int,
) -> Any:
    """A GRPOTrainer for `model` (Hugging Face's) with our settings; `dataset` has prompt, a, b."""
    from torch.optim.lr_scheduler import LambdaLR
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def reward(completions: list[str], a: list[int], b: list[int], **_: Any) -> list[float]:
        found: list[float] = score(judge, completions, np.array([a, b]).T).tolist()
        return found

    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    args = GRPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=settings.prompts * settings.group,
        num_generations=settings.group,
        num_iterations=settings.iterations,
        max_completion_length=task.longest,
        loss_type=settings.loss,
        scale_rewards="none" if settings.loss == "dr_grpo" else "group",
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        beta=0.0,
        temperature=1.0,
        max_grad_norm=settings.max_norm,
        shuffle_dataset=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        seed=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=args,
            train_dataset=dataset,
            processing_class=tokenizer(),
            optimizers=(optimizer, LambdaLR(optimizer, lambda step: 1 - step / steps)),
        )


def train_with_trl(
    run: Run,
    model: GPT,
    task: Addition,
    judge: Judge,
    settings: GRPOSettings,
    pairs: np.ndarray,
    steps: int,
) -> None:
    """Train `model` in place on the sums `pairs` (P, 2), the questions of each step as ours."""
    theirs = to_huggingface(model, tokenizer()).to(run.device)

    def rows(step: int) -> list[dict[str, Any]]:
        asked = pairs[batch_indices(len(pairs), settings.prompts, step, run.seed)]
        return [{"prompt": f"{a}+{b}=", "a": a, "b": b} for a, b in asked.tolist()]

    trainer = make_trainer(
        theirs, task, judge, settings, steps, stream(run, rows), run.device,
        str(run.dir / "trl"), run.seed,
    )  # fmt: skip
    train_joined(trainer, run)
    model.load_state_dict(from_huggingface(theirs).to(run.device).state_dict())
