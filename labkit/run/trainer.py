"""Joins a Trainer of transformers (trl's among them) to a `Run`: steps, logs, checkpoints, resume.

    trainer = SFTTrainer(..., train_dataset=stream(run, rows_of_step))
    train_joined(trainer, run)

A Trainer keeps its own step count, its own checkpoints and its own way to stop. Here those of the
run are used: `run.steps` is advanced from the Trainer's callbacks, so the checkpoints are labkit's,
written on its cadence and on SIGTERM, and `resume=` is bit-identical. The Trainer's own parts are
switched off in its settings: `save_strategy="no"`, `report_to="none"`, and `logging_steps=1` if the
curve of a resumed run is to be that of an uninterrupted one (it averages over that interval).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from labkit.run.run import Run
from labkit.state import rng

NAMES = {"learning_rate": "lr"}
"""Keys of the Trainer that have another name in the lab."""
LEFT_OUT = {"epoch", "num_tokens", "total_flos", "train_loss", "step_time"}
"""What a Trainer counts from its start, so that a resumed run could not continue it."""


class NoMoreSteps(Exception):
    """The run has no further step: raised to leave the Trainer at once."""


class RunCallback(TrainerCallback):
    """Advances `run.steps` before every step of a Trainer, and hands its logs to `run.log`."""

    def __init__(self, run: Run, trainer: Any) -> None:
        self.run, self.trainer = run, trainer
        self.steps: Iterator[int] = iter(())
        self.rng: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Track what is trained, restore it, and let the Trainer count on from there."""
        weights = {n: p for n, p in kwargs["model"].named_parameters() if p.requires_grad}
        self.run.track(
            weights=weights, optimizer=kwargs["optimizer"], scheduler=kwargs["lr_scheduler"]
        )
        self.steps = iter(self.run.steps(state.max_steps))
        self._advance()
        state.global_step = self.run.step
        self.trainer._globalstep_last_logged = self.run.step  # it divides the summed loss by these
        # The loader draws a seed after this and before the first step; see `on_step_begin`.
        self.rng = rng.rng_state()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The step before is complete, its logs included: now is the time to save or to stop."""
        if self.rng is not None:
            rng.set_rng_state(self.rng)
            self.rng = None
        else:
            self._advance()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """`loss` becomes train/loss, `eval_loss` eval/loss, `learning_rate` train/lr."""
        found = {}
        for key, value in (logs or {}).items():
            if key not in LEFT_OUT and not key.endswith(("_per_second", "_runtime")):
                group, name = ("eval", key[5:]) if key.startswith("eval_") else ("train", key)
                found[f"{group}/{NAMES.get(name, name)}"] = value
        if found:
            self.run.log(found, self.run.step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let `run.steps` see that its last step is done."""
        for _ in self.steps:
            raise RuntimeError(f"the Trainer ended after step {state.global_step}, the run did not")

    def _advance(self) -> None:
        if next(self.steps, None) is None:
            raise NoMoreSteps


def train_joined(trainer: Any, run: Run) -> None:
    """`trainer.train()` under the run: from its checkpoint when it was resumed, else from step 0.

    Raises Interrupted (which the entrypoint handles) when a signal stopped the run.
    """
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    callback = RunCallback(run, trainer)
    trainer.add_callback(callback)
    try:
        trainer.train()
    except NoMoreSteps:
        pass
    finally:
        callback.steps.close()  # type: ignore[attr-defined]  # signal handlers go back in any case


def stream(run: Run, rows_of_step: Callable[[int], Sequence[dict[str, Any]]]) -> Any:
    """A dataset of the rows of step after step, from the run's current step when it is read.

    Args:
        rows_of_step: the rows of one optimiser step (as many as the Trainer takes for it), a
            function of the step alone.
    """
    from datasets import IterableDataset

    def rows() -> Iterator[dict[str, Any]]:
        step = run.step
        while True:
            yield from rows_of_step(step)
            step += 1

    return IterableDataset.from_generator(rows)
