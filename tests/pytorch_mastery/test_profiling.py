"""The profiler finds the operators that ran, as often as they ran, and writes a trace."""

import json
from pathlib import Path

import pytest
import torch

from pytorch_mastery import profiling


def test_operators_are_counted_over_the_profiled_steps_alone() -> None:
    a, b = torch.rand(300, 300), torch.rand(4)

    def step() -> None:
        a @ a
        b + b

    operators = {o.name: o for o in profiling.most_expensive(profiling.profile_steps(step, 7))}
    assert operators["aten::mm"].calls == 7  # and not 9: the two steps of warm-up are left out
    assert operators["aten::add"].calls == 7
    assert sum(o.share for o in operators.values()) == pytest.approx(1)
    times = [o.milliseconds for o in operators.values()]
    assert times == sorted(times, reverse=True)


def test_command_prints_ten_rows_and_writes_the_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.json"
    words = ["--steps", "2", "--batch-size", "4", "--width", "4", "--trace", str(trace)]
    assert profiling.main(words) == 0
    out = capsys.readouterr().out
    assert sum(line.endswith("%") for line in out.splitlines()) == 10
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    names = [e.get("name") for e in events]
    assert names.count("aten::convolution_backward") == 2 * 4  # steps, convolutions


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step-count", "3"], "unrecognized arguments"),
        (["--steps", "0"], "must be at least 1"),
        (["--trace", "/nowhere/at/all/trace.json"], "there is no folder /nowhere/at/all"),
    ],
)
def test_wrong_options_end_with_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        profiling.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
