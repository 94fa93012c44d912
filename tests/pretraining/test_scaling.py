"""The ladder of trainings, its checkpoints, and the report from losses of a known law."""

import json
import random
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labkit import UsageError
from labkit.state import checkpoint
from pretraining.powerlaw import Law
from pretraining.scaling.train import train
from tests.conftest import same


def planned(**changes: Any) -> Any:
    from pretraining.scaling.ladder import plan

    settings: dict[str, Any] = {
        "widths": [8, 16, 24, 32], "budgets": [3e8, 1e9, 3e9], "ratio": [0.1, 1000], "layers": 2,
        "head_dim": 16, "context": 16, "batch_size": 4, "vocabulary": 11, "text": 10**6,
    }  # fmt: skip
    return plan(**(settings | changes))


def test_every_training_spends_its_budget() -> None:
    from pretraining.model import GPT

    trainings = planned()
    for training in trainings:
        model = GPT(training.shape, "modern")
        assert training.parameters == sum(p.numel() for p in model.parameters())
        assert training.tokens == training.steps * 64
        spent = 6 * training.parameters * training.tokens
        assert abs(spent - training.compute) <= 6 * training.parameters * 64 / 2  # half a step
    assert [t.compute for t in trainings] == sorted(t.compute for t in trainings)
    assert len({t.shape.width for t in trainings}) == 4


def test_ways_of_counting_differ_by_the_embedding_and_the_head() -> None:
    for every, inside in zip(planned(), planned(count="non_embedding"), strict=True):
        assert every.parameters - inside.parameters == 2 * 11 * every.shape.width
        assert inside.steps >= every.steps  # the same budget buys a smaller N more text


def test_repeats_differ_in_their_seed_alone() -> None:
    from dataclasses import replace

    twice, once = planned(seeds=[3, 4]), planned(seeds=[3])
    assert twice[::2] == once
    assert twice[1::2] == [replace(training, seed=4) for training in once]
    with pytest.raises(UsageError, match="leaves 2 of the sizes"):
        planned(widths=[8, 16], seeds=[0, 1])


def test_sizes_far_from_the_best_and_worn_texts_are_left_out() -> None:
    for training in planned(ratio=[0.2, 160]):
        assert 0.2 <= training.tokens / training.parameters <= 160
    assert len(planned(ratio=[0.2, 160])) < len(planned())
    assert all(t.tokens <= 4 * 30_000 for t in planned(text=30_000))
    assert len(planned(text=30_000)) < len(planned())
    with pytest.raises(UsageError, match="a minimum needs three"):
        planned(ratio=[10, 12])


def test_steps_are_dealt_out_to_the_trainings_in_turn() -> None:
    import torch

    from pretraining.scaling.ladder import Ladder

    trainings = planned(budgets=[3e8, 4e8, 5e8])[:3]
    ladder = Ladder(trainings, 0.01, torch.device("cpu"))
    dealt = []
    for step in range(ladder.steps):
        local = ladder.at(step)
        dealt.append((ladder.index, local))
        assert ladder.model.shape == ladder.training.shape
    assert dealt == [(i, s) for i, t in enumerate(trainings) for s in range(t.steps)]


def test_a_checkpoint_brings_back_the_model_it_was_made_of() -> None:
    """Into a ladder that stands at another size, with the moments of the optimizer."""
    import torch

    from pretraining.scaling.ladder import Ladder

    trainings = planned()[:3]
    ladder = Ladder(trainings, 0.01, torch.device("cpu"))
    first = ladder.training.steps
    ladder.at(first)
    ladder.losses.append(1.5)
    x = torch.randint(11, (2, 16))
    ladder.model(x).square().sum().backward()
    ladder.optimizer.step()
    other = Ladder(trainings, 0.01, torch.device("cpu"))
    other.load_state_dict(ladder.state_dict())
    assert (other.index, other.losses) == (1, [1.5])
    assert torch.equal(other.model(x), ladder.model(x))
    other.at(first + 1)  # goes on with it, and does not begin anew
    assert torch.equal(other.model(x), ladder.model(x))
    for mine, theirs in zip(
        other.optimizer.state.values(), ladder.optimizer.state.values(), strict=True
    ):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])


LAW = Law(1.3, (25.0, 40.0), (0.45, 0.35))


def measured(noise: float = 0.0) -> Any:
    """Five sizes under four budgets, around the best size of LAW."""
    from pretraining.powerlaw import compute_optimal
    from pretraining.scaling.estimates import Runs

    around = np.geomspace(1 / 4, 4, 5)
    c = np.repeat(np.geomspace(1e10, 1e12, 4), 5)
    n = compute_optimal(LAW, c)[0] * np.tile(around, 4)
    d = c / 6 / n
    wobble = np.exp(noise * np.random.default_rng(0).standard_normal(len(n)))
    return Runs(n, d, c, LAW(n, d) * wobble)


def test_estimates_of_a_known_law() -> None:
    from pretraining.scaling.estimates import estimates, extrapolation_error

    runs = measured()
    _, found = estimates(runs)
    assert found["alpha"] == pytest.approx(0.45, abs=1e-4)
    assert found["beta"] == pytest.approx(0.35, abs=1e-4)
    assert found["irreducible"] == pytest.approx(1.3, abs=1e-3)
    assert found["n_opt_law"] == pytest.approx(0.35 / 0.8, abs=1e-4)
    assert found["n_opt_parabola"] == pytest.approx(0.35 / 0.8, abs=0.01)
    lowest = [float(LAW(runs.n[i], runs.d[i])) for i in (2, 17)]
    assert found["slope_c"] == pytest.approx(np.log(lowest[0] / lowest[1]) / np.log(100), rel=0.02)
    middle = np.exp(np.log(runs.n).mean())
    part = 25 / middle**0.45
    assert found["slope_n"] == pytest.approx(0.45 * part / (1.3 + part), rel=1e-3)
    assert extrapolation_error(runs) < 1e-4


def test_extrapolation_is_judged_on_the_budget_that_the_fit_did_not_see() -> None:
    from pretraining.scaling.estimates import Runs, extrapolation_error

    runs = measured()
    off = np.where(runs.compute == runs.budgets[-1], runs.loss + 0.1, runs.loss)
    assert extrapolation_error(Runs(runs.n, runs.d, runs.compute, off)) == pytest.approx(0.1, 1e-3)


def test_budgets_without_a_minimum_are_passed_over() -> None:
    from pretraining.scaling.estimates import Runs, estimates

    runs = measured()
    falling = np.where(runs.compute > 2e10, -0.01 * np.log(runs.n) ** 2 + 5, runs.loss)
    changed = Runs(runs.n, runs.d, runs.compute, falling)
    assert len(list(changed.minima())) == 1
    assert "n_opt_parabola" not in estimates(changed)[1]


def test_a_law_turned_around_by_noise_is_still_reported() -> None:
    """Few tiny runs can make a loss that rises with N: no best size, but a table and a picture."""
    from pretraining.scaling.estimates import Runs, estimates
    from pretraining.scaling.figures import figure
    from pretraining.scaling.report import table

    runs = measured()
    turned = Law(1.3, (0.01, 40.0), (-0.4, 0.35))
    runs = Runs(runs.n, runs.d, runs.compute, turned(runs.n, runs.d))
    law, found = estimates(runs)
    assert law.exponents[0] < 0
    assert "n_opt_law" not in found
    metrics = {"extrapolation_error": 0.0, "fit_error": 0.0}
    text = table(runs, law, found, dict.fromkeys(found, (0.0, 1.0)), metrics)
    assert re.search("from the law +no minimum", text)
    assert "best N" not in text
    assert len(figure(runs, law, [law, LAW]).axes) == 3


def test_smoke_fits_draws_and_records(lab_run: Any) -> None:
    done = lab_run.once("pretraining.scaling", "+size=smoke")
    assert done.returncode == 0, done.output
    metrics = done.record["metrics"]
    for key in ("alpha", "beta", "slope_n", "slope_d"):
        assert metrics[f"{key}_low"] <= metrics[f"{key}_high"]
    losses = [row["valid/loss"] for row in done.metrics if "valid/loss" in row]
    assert len(losses) == metrics["trainings"] >= 12
    assert max(losses) < np.log(97)  # better than guessing among the characters
    assert {p.name for p in (done.dir / "samples").iterdir()} == {"scaling.png", "scaling.txt"}
    text = (done.dir / "samples" / "scaling.txt").read_text()
    assert f"{metrics['alpha']:7.3f}" in text
    assert "0.34 Hoffmann" in text


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where runs of this process go; what they leave in the process is undone."""
    monkeypatch.setattr("sys.argv", ["test"])
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    return tmp_path


def test_an_interrupted_ladder_goes_on_to_the_same_bits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a random step, in this process; the week's own resume test kills one."""
    from matplotlib.figure import Figure

    from pretraining.scaling import report
    from pretraining.scaling.ladder import Ladder

    monkeypatch.setattr(report, "figure", lambda *_: Figure())  # smoke draws the real one
    words = ["+size=smoke", "draws=2", "budgets=[2e7,3e7,4e7]", "tokens_per_parameter=[0.1,200]"]
    assert train.main(words) == 0
    (whole,) = (file.parent for file in home.glob("runs/*/*/*/result.json"))
    steps, at = json.loads((whole / "result.json").read_text())["steps"], Ladder.at
    last = random.SystemRandom().randint(1, steps - 2)
    print(f"stopped in step {last} of {steps}")

    def stop(ladder: Ladder, step: int) -> int:
        if step == last:
            signal.raise_signal(signal.SIGTERM)
        return at(ladder, step)

    with monkeypatch.context() as patched:
        patched.setattr(Ladder, "at", stop)
        assert train.main(words) == 130
    (cut,) = {f.parent.parent for f in home.glob("runs/*/*/*/.hydra/config.yaml")} - {whole}
    assert train.main([f"resume={cut}"]) == 0
    ends = [json.loads((folder / "result.json").read_text()) for folder in (whole, cut)]
    assert ends[0]["metrics"] == ends[1]["metrics"]
    lines = [(folder / "metrics.jsonl").read_text() for folder in (whole, cut)]
    assert lines[0] == lines[1]
    states = [checkpoint.load_latest(folder / "checkpoint") for folder in (whole, cut)]
    assert same(*(state["tracked"] for state in states if state))


def test_the_command_is_the_parts_own(lab_run: Any) -> None:
    process = lab_run.start("-m", "pretraining.scaling.train", "--help")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "tokens_per_parameter" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("widths=[8,16]",), "four or more different even numbers"),
        (("budgets=[1e9]",), "three or more different FLOPs"),
        (("lr=0",), "lr must be > 0"),
        (("count=embedding",), "did you mean non_embedding?"),
        (("tokens_per_parameter=[1]",), "fewest and most"),
        (("tokens_per_parameter=[100,101]",), "a minimum needs three"),
    ],
)
def test_settings_out_of_range_are_refused(
    home: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert train.main(["+size=smoke", *words]) == 2
    assert message in capfd.readouterr().err
    assert not list(home.glob("runs/*/*/*/.hydra"))
