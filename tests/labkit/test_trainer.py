"""A Trainer under the run: its steps, its logs, its end by a signal, and exact resume."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from labkit import LabConfig, Run
from labkit.errors import Interrupted
from labkit.run.trainer import stream, train_joined
from labkit.state import checkpoint

STEPS = 6


def rows(step: int) -> list[dict[str, Any]]:
    g = torch.Generator().manual_seed(step)
    tokens = torch.randint(1, 50, (4, 7), generator=g).tolist()
    return [{"input_ids": row, "labels": row} for row in tokens]


def make_trainer(run: Run, callbacks: list[Any] | None = None) -> Any:
    """A plain Trainer of transformers on a GPT-2 with dropout: the generators matter."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2, resid_pdrop=0.3,
        embd_pdrop=0.3, attn_pdrop=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    settings = TrainingArguments(
        output_dir=str(run.dir / "hf"), max_steps=STEPS, per_device_train_batch_size=4,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        learning_rate=1e-2, lr_scheduler_type="linear",
    )  # fmt: skip
    return Trainer(
        model=GPT2LMHeadModel(config),
        args=settings,
        train_dataset=stream(run, rows),
        callbacks=callbacks,
    )


def start(folder: Path, resumed: bool = False, **words: Any) -> Run:
    folder.mkdir(exist_ok=True)
    cfg = LabConfig(device="cpu", precision="fp32", **words)
    return Run("toy", cfg, folder, "smoke", resumed=resumed)


def state(folder: Path) -> Any:
    found = checkpoint.load_latest(folder / "checkpoint")
    assert found is not None
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def stop_at(step: int) -> Any:
    """Tells this process to stop, as a scheduler would, in the middle of a step."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)

    return Stop()


def test_a_stopped_trainer_goes_on_with_equal_bits(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole")
    train_joined(make_trainer(whole), whole)
    whole.save()
    whole.close()
    assert whole.step == STEPS

    cut = start(tmp_path / "cut")
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 3"):
        train_joined(make_trainer(cut, [stop_at(2)]), cut)
    cut.close()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "the handler went back"
    assert state(tmp_path / "cut")["step"] == 3

    again = start(tmp_path / "cut", resumed=True)
    train_joined(make_trainer(again), again)
    again.save()
    again.close()
    ends = [state(tmp_path / name) for name in ("whole", "cut")]
    assert ends[0]["step"] == ends[1]["step"] == STEPS
    assert same(ends[0]["tracked"]["weights"], ends[1]["tracked"]["weights"])
    assert same(ends[0]["tracked"]["optimizer"], ends[1]["tracked"]["optimizer"])
    assert same(ends[0]["tracked"]["scheduler"], ends[1]["tracked"]["scheduler"])
    curves = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert curves[0] == curves[1]
    lines = curves[0].splitlines()
    assert len(lines) == STEPS
    assert '"train/loss"' in lines[0]
    assert '"train/lr"' in lines[0]
    assert "epoch" not in curves[0]


def test_a_run_that_was_stopped_after_its_last_step_does_not_train_again(tmp_path: Path) -> None:
    done = start(tmp_path / "done")
    train_joined(make_trainer(done), done)
    done.save()
    done.close()
    before = state(tmp_path / "done")
    again = start(tmp_path / "done", resumed=True)
    trainer = make_trainer(again)
    train_joined(trainer, again)
    again.close()
    assert again.step == STEPS
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, before["tracked"]["weights"][name])


def test_max_steps_ends_the_trainer_early(tmp_path: Path) -> None:
    run = start(tmp_path / "short", max_steps=2)
    trainer = make_trainer(run)
    train_joined(trainer, run)
    run.close()
    assert run.step == 2
    assert trainer.state.global_step == 2


def test_a_checkpoint_after_every_step_holds_that_steps_log(tmp_path: Path) -> None:
    run = start(tmp_path / "often", checkpoint_seconds=0.0)
    train_joined(make_trainer(run), run)
    run.close()
    lines = (tmp_path / "often" / "metrics.jsonl").read_text().splitlines(keepends=True)
    saved = {
        found["step"]: found["metrics_bytes"]
        for file in (tmp_path / "often" / "checkpoint").iterdir()
        for found in [checkpoint.load(file)]
    }
    assert saved == {k: len("".join(lines[:k]).encode()) for k in saved}
