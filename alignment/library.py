"""The same fine-tuning the libraries' way: peft for LoRA, trl's SFTTrainer for the loop.

The examples, their labels, the optimiser and the schedule are ours, so both ways must give the same
loss curve. LoRA, the batches (padded instead of packed), the loss and the loop are the libraries'.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from alignment.chat import Example
from alignment.lora import draw
from labkit import Run
from labkit.run.trainer import stream, train_joined


def add_peft(
    model: Any,
    targets: list[str],
    rank: int,
    alpha: float,
    dropout: float,
    generator: torch.Generator | None = None,
) -> Any:
    """peft's LoRA around a model, with the initial numbers that `add_lora` draws from `generator`.

    It contains the changed base: `get_base_model()`.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # need not be whole
        target_modules=targets,
        lora_dropout=dropout,
        task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",  # its layers are Conv1D
    )
    with warnings.catch_warnings():  # for a Linear head with a shared weight: see untie
        warnings.simplefilter("ignore", UserWarning)
        found = get_peft_model(model, config)
    for layer in found.modules():
        if isinstance(layer, LoraLayer):
            draw(layer.lora_A["default"].get_parameter("weight"), generator)
    return found


def train_with_trl(
    run: Run,
    model: Any,
    tokenizer: Any,
    optimizer: Any,
    rate: Callable[[int], float],
    examples_of_step: Callable[[int], tuple[Sequence[Example], Sequence[list[int]]]],
    steps: int,
    batch_size: int,
    clip: float,
) -> None:
    """Train `model` (peft's) in place.

    Args:
        rate: factor on the optimiser's learning rate at a step.
        examples_of_step: examples and labels of a step, `batch_size` of them.
    """
    from torch.optim.lr_scheduler import LambdaLR
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    def rows(step: int) -> list[dict[str, Any]]:
        examples, labels = examples_of_step(step)
        return [
            {"input_ids": example.tokens, "labels": list(label)}
            for example, label in zip(examples, labels, strict=True)
        ]

    settings = SFTConfig(
        output_dir=str(run.dir / "trl"),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        max_length=None,  # nothing is cut: rows that are too long were dropped
        max_grad_norm=clip,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=run.device.type == "cpu",
        bf16=False,  # run.autocast() is around all of it
        gradient_checkpointing=False,
        seed=run.seed,
    )
    trainer = SFTTrainer(
        model=model,
        args=settings,
        train_dataset=stream(run, rows),
        processing_class=tokenizer,
        optimizers=(optimizer, LambdaLR(optimizer, rate)),
    )
    with run.autocast():
        train_joined(trainer, run)
