"""The same DPO the library's way: trl's DPOTrainer on the same pairs, optimiser and schedule.

The rows are already tokens and their reference log-probabilities already known, so the trainer's
own preparation, which tokenizes texts and asks the reference again, is left out. The batches, the
loss and the loop are trl's.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from labkit import Run
from labkit.data import batch_indices
from labkit.run.trainer import stream, train_joined
from pretraining import GPT, from_huggingface, to_huggingface
from rlhf.preferences import Pair
from rlhf.settings import DPOSettings
from rlhf.start import optimizers_of


class PreparedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """trl's trainer for rows that are ready."""

    def _prepare_dataset(self, dataset: Any, *rest: Any, **others: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *rest: Any, **others: Any) -> Any:
        return dataset


def rows_of(pairs: Sequence[Pair], reference: Tensor, index: Sequence[int]) -> list[dict[str, Any]]:
    """The rows that trl's collator takes; `reference` is (P, 2)."""
    return [
        {
            "prompt_ids": pairs[i].prompt,
            "chosen_ids": pairs[i].chosen,
            "rejected_ids": pairs[i].rejected,
            "ref_chosen_logps": reference[i, 0].item(),
            "ref_rejected_logps": reference[i, 1].item(),
        }
        for i in index
    ]


def make_trainer(
    model: Any,
    tokenizer: Any,
    dataset: Any,
    settings: DPOSettings,
    optimizers: tuple[Any, Any],
    folder: str,
    steps: int,
    batch_size: int,
    clip: float,
    cpu: bool,
    seed: int,
) -> PreparedDPOTrainer:
    """trl's trainer with everything of ours that it can take; `optimizers` is also a schedule."""
    config = DPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        max_length=None,  # nothing is cut: rows that are too long were refused or dropped
        max_grad_norm=clip,
        beta=settings.beta,
        label_smoothing=0.0,
        precompute_ref_log_probs=True,
        disable_dropout=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=cpu,
        bf16=False,
        gradient_checkpointing=False,
        seed=seed,
    )
    return PreparedDPOTrainer(
        model=model, args=config, train_dataset=dataset, processing_class=tokenizer,
        optimizers=optimizers,
    )  # fmt: skip


def train_with_trl(
    run: Run,
    policy: GPT,
    tokenizer: Any,
    pairs: Sequence[Pair],
    reference: Tensor,
    settings: DPOSettings,
    rate: Callable[[int], float],
    steps: int,
    batch_size: int,
    clip: float,
) -> GPT:
    """`policy` after DPO by trl, on the batches of `method=dpo`.

    Args:
        reference: log-probabilities of the pairs' answers under the reference, (P, 2).
        rate: factor on the learning rate at a step.
    """
    model = to_huggingface(policy, tokenizer).to(run.device)
    (optimizer,) = optimizers_of(model, settings)
    known = reference.cpu()

    def rows(step: int) -> list[dict[str, Any]]:
        index = batch_indices(len(pairs), batch_size, step, run.seed).tolist()
        return rows_of(pairs, known, index)

    trainer = make_trainer(
        model, tokenizer, stream(run, rows), settings, (optimizer, LambdaLR(optimizer, rate)),
        str(run.dir / "trl"), steps, batch_size, clip, run.device.type == "cpu", run.seed,
    )  # fmt: skip
    with run.autocast():
        train_joined(trainer, run)
    return from_huggingface(model).to(run.device)
