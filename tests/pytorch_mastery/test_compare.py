"""The comparisons compare like with like, and say so where the machine cannot."""

import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from pytorch_mastery import compare


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def test_two_trainings_are_the_same_training() -> None:
    runs = []
    for _ in range(2):
        model = compare.build(4)
        runs.append(compare.measure(model, model, 3, 8))
    assert runs[0].losses == runs[1].losses
    assert len(runs[0].losses) == 3
    assert compare.difference(*runs) == 0


def test_the_task_can_be_learned() -> None:
    model = small()
    losses = compare.measure(model, model, 200, 64).losses
    assert sum(losses[-20:]) / 20 < math.log(10) - 0.05


def test_bf16_autocast_rounds_the_products_and_keeps_fp32_weights() -> None:
    kinds, runs = [], []
    for bf16 in (False, True):
        model = small()
        model[1].register_forward_hook(lambda m, x, out: kinds.append(out.dtype))  # type: ignore
        runs.append(compare.measure(model, model, 3, 8, bf16=bf16))
    assert kinds == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert all(p.dtype == torch.float32 for p in runs[1].weights.values())
    assert runs[0].losses != runs[1].losses
    assert runs[0].losses == pytest.approx(runs[1].losses, rel=0.02)
    by_hand = max(
        (runs[0].weights[k] - runs[1].weights[k]).abs().max().item() for k in ("1.weight", "1.bias")
    )
    assert compare.difference(*runs) == by_hand > 0


def test_compiled_training_has_the_losses_of_eager_training() -> None:
    if compare.compiler() is None:
        pytest.skip("torch.compile needs a C++ compiler, and there is none here")
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        eager, fused = process.submit(eager_and_compiled).result(300)
    assert fused.losses[0] == pytest.approx(eager.losses[0], rel=1e-6)
    # The first steps of AdamW have the size of the learning rate, whatever the gradient's: where a
    # gradient is nearly 0, rounding decides. A wrong gradient changes these losses by a percent.
    assert fused.losses == pytest.approx(eager.losses, rel=1e-3)


def eager_and_compiled() -> tuple[compare.Measured, compare.Measured]:
    """In a process of its own: in one that has run hundreds of tests the compiler may abort."""
    plain, compiled = small(), small()
    eager = compare.measure(plain, plain, 3, 8)
    return eager, compare.measure(compiled, torch.compile(compiled), 3, 8)


def test_no_compiler_is_said_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(compare, "compiler", lambda: None)
    assert compare.main(["compile"]) == 2
    assert "apt install g++" in capsys.readouterr().out


def test_the_compiler_is_looked_for_on_the_path_and_in_cxx(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert compare.compiler() is None
    own = tmp_path / "my-cxx"
    own.write_text("#!/bin/sh\n", encoding="utf-8")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", str(own))
    assert compare.compiler() == str(own)


@pytest.mark.parametrize("fast", [True, False])
def test_precision_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fast: bool
) -> None:
    monkeypatch.setattr(compare, "has_fast_bf16", lambda device: fast)
    assert compare.main(["precision", "--steps", "2", "--batch-size", "4", "--width", "4"]) == 0
    out = capsys.readouterr().out
    assert out.count("torch.float32") == 2
    assert "largest difference between two parameters" in out
    assert ("no bf16 arithmetic of its own" in out) is not fast


@pytest.mark.parametrize("words", [[], ["speed"], ["compile", "--steps", "1"], ["compile", "-x"]])
def test_wrong_options_end_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(words)
    assert stop.value.code == 2
