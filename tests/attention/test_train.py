"""The week as a person runs it, at size smoke, and the model in it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from attention import Transformer
from attention.train import Config, train
from labkit import UsageError


def test_smoke_learns_the_three_tasks_and_draws(lab_run: Any) -> None:
    done = lab_run.once("attention", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    assert metrics["exact_match"] > 50
    assert metrics["exact_match"] == pytest.approx(
        sum(metrics[f"{task}_match"] for task in ("copy", "reverse", "sort")) / 3
    )
    assert abs(metrics["teacher_gap"]) < 1  # what it learned it can write,
    assert abs(metrics["cache_gap"]) < 1  # and the cache makes no difference
    assert done.record["data"]["source"] == "generated"
    pictures = {p.stem for p in (done.dir / "samples").iterdir()}
    maps = {"attention_copy", "attention_reverse", "attention_sort"}
    assert pictures == {"loss", "valid", "cost"} | maps


SHORT = ("+size=smoke", "tests=20", "cost_lengths=[64]")


def test_resumes_to_the_same_bits(resume_check: Any, lab_run: Any) -> None:
    """One task alone, and no setting of attention as the other runs here have it."""
    words = ("steps=12", "task=sort", "positions=rotary", "kv_heads=1", "backend=tiled")
    resume_check("attention", *SHORT, *words)
    folders = lab_run.folders()
    assert len(folders) == 2  # the whole run, and the one that was killed and resumed
    for folder in folders:
        reports_one_task("sort", folder)


def test_debug_stops_early_and_still_reports_its_task(lab_run: Any) -> None:
    done = lab_run("attention", *SHORT, "debug=default", "task=copy")
    assert done.returncode == 0, done.output
    reports_one_task("copy", done.dir)


def reports_one_task(task: str, folder: Path) -> None:
    """Its numbers and its picture, and those of no other task."""
    metrics = json.loads((folder / "result.json").read_text(encoding="utf-8"))["metrics"]
    assert {name for name in metrics if name.endswith("_match")} == {f"{task}_match", "exact_match"}
    maps = {p.stem for p in (folder / "samples").glob("attention_*")}
    assert maps == {f"attention_{task}"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("d_model=30", "heads=4"), "must be even and a multiple of heads"),
        (("heads=2", "kv_heads=3"), "kv_heads must divide heads=2, got 3"),
        (("length=0",), "length must be > 0"),
        (("length=2", "symbols=3"), "too few to hold any out"),
        (("positions=rotory",), "did you mean rotary?"),
        (("d_model=32", "heads=32", "positions=rotary"), "even number of dimensions"),
        (("warmup=1.5",), "warmup must be from 0 to 1, got 1.5; try warmup=0.1"),
        (("kv_heads=0",), "kv_heads must be > 0"),
        (("cost_lengths=[64,0]",), "cost_lengths must be > 0, got 0"),
        (("scale=1.0",), "unknown setting 'scale'"),
        (("lookahead=1",), "unknown setting 'lookahead'"),
        (("advance=false",), "unknown setting 'advance'"),
        (("cost_lengths=[]",), "cost_lengths must be a list"),
    ],
)
def test_settings_out_of_range_are_refused(
    words: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["+size=smoke", *words]) == 2
    assert message in capfd.readouterr().err


def test_too_small_a_batch_for_three_tasks_is_refused() -> None:
    with pytest.raises(UsageError, match="batch_size must be 3 or more"):
        Config(batch_size=2)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary", "alibi", "none"])
def test_no_position_sees_a_later_token(positions: str) -> None:
    """Change one token: what comes before it must not move, what comes after must."""
    torch.manual_seed(0)
    model = Transformer(11, 16, 4, 2, positions=positions)
    tokens = torch.randint(11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 11
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(dim=-1).all()


def test_broken_mask_sees_exactly_one_token_more(
    planted: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one layer: position 4 sees token 5, position 3 does not."""
    wrong = planted("attention.causal_mask: a query sees the key after its own")
    monkeypatch.setattr(
        "attention.heads.scaled_dot_product_attention", wrong.scaled_dot_product_attention
    )
    torch.manual_seed(0)
    model = Transformer(11, 16, 4, 1, backend="naive")
    tokens = torch.randint(11, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (tokens[0, 5] + 1) % 11
    with torch.no_grad():
        moved = (model(tokens) != model(changed)).any(dim=-1)[0]
    assert moved.tolist() == [False] * 4 + [True] * 4


def test_without_positions_the_order_of_the_past_is_lost() -> None:
    """Attention sees a set: swap two earlier tokens, and one layer's last output is the same."""
    torch.manual_seed(0)
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    swapped = torch.tensor([[2, 1, 3, 4, 5]])
    for positions, blind in (("none", True), ("sinusoidal", False), ("rotary", False)):
        model = Transformer(11, 16, 4, 1, positions=positions)  # type: ignore[arg-type]
        with torch.no_grad():
            a, b = model(tokens)[0, -1], model(swapped)[0, -1]
        assert torch.allclose(a, b, atol=1e-5) == blind, positions


def test_maps_are_those_of_the_forward_pass() -> None:
    """Rows sum to 1, the future has none, and each layer looks at what the one before it made."""
    torch.manual_seed(0)
    model = Transformer(11, 16, 4, 2, kv_heads=2, positions="rotary")
    tokens = torch.randint(11, (3, 6))
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(tokens)
        maps = model.maps(tokens)
        expected = [
            block.attention.maps(x, causal=True)
            for block, x in zip(model.blocks, seen[:2], strict=True)
        ]
    assert maps.shape == (2, 3, 4, 6, 6)
    torch.testing.assert_close(maps, torch.stack(expected))
    torch.testing.assert_close(maps.sum(dim=-1), torch.ones(2, 3, 4, 6))
    assert not maps.triu(1).any()
