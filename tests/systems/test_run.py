"""The week as a person runs it, at size smoke."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from systems.train import ORDER
from systems.train import train as systems_train
from systems.zero.train import train as zero_train
from tests.conftest import ASK_EACH, Lab


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of this process go there."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr("sys.argv", ["test"])
    return tmp_path


def test_the_schemes_are_those_of_the_code() -> None:
    from systems.schemes import SCHEMES

    assert list(SCHEMES) == ORDER


def test_smoke_quantises_serves_and_publishes(lab_run: Lab) -> None:
    done = lab_run.once("systems", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["same_greedy"] == 100
    assert abs(metrics["perplexity_increase"]) < 0.5
    assert abs(metrics["int8_tensor_increase"]) < 0.5  # of a random model the sign is chance
    assert metrics["gptq_gain"] == pytest.approx(
        metrics["int4_increase"] - metrics["gptq_increase"]
    )
    assert metrics["perplexity"] < 300, "below the 512 of guessing"
    assert metrics["speedup"] == min(metrics["speedup_1"], metrics["speedup_4"])
    text = (done.dir / "samples" / "schemes.txt").read_text()
    assert [line.split()[0] for line in text.splitlines()] == ["scheme", "float32", *ORDER]
    assert (done.dir / "samples" / "schemes.png").is_file()

    from systems import packed
    from systems.models import open_folder

    published = done.home / "artifacts" / "systems" / "smoke-pydoc"
    model, tokenizer = open_folder(published)
    assert packed.is_packed(published)
    assert model.shape.vocabulary == len(tokenizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_HOME", str(done.home))
        from systems.models import find

        assert find(str(published)) == published


def test_zero_at_smoke_is_the_same_training(lab_run: Lab) -> None:
    done = lab_run.once("systems.zero", "+size=smoke")
    assert done.returncode == 0, done.output
    assert done.record is not None
    assert done.dir is not None
    metrics = done.record["metrics"]
    assert metrics["loss_gap"] < 1e-4
    assert metrics["gradient_ratio"] == pytest.approx(1, rel=1e-4)
    assert metrics["memory_ratio"] == pytest.approx(1, abs=0.02)
    assert metrics["volume"] == pytest.approx(3, rel=0.01)
    assert done.metrics[-1]["train/loss"] < done.metrics[0]["train/loss"] - 0.2
    assert (done.dir / "samples" / "memory.png").is_file()


def test_zero_resumes_to_the_same_bits(resume_check) -> None:
    resume_check("systems.zero", "+size=smoke", "steps=5", "weights=bf16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("schemes=[int8,gtpq]", "did you mean gptq?"),
        ("schemes=[gptq]", "schemes must contain int8"),
        ("batches=[]", "try batches=[1,8]"),
        ("quantize.damping=0", "quantize.damping must be > 0, got 0"),
        ("quantize.group=7", "group=7 does not divide a row of 64 weights; try group=4"),
        ("temperature=-1", "temperature must be 0 or more, got -1"),
        ("top_p=0", "top_p must be above 0 and up to 1, got 0"),
        ("new=60", "are more than the model's context of 64; try prompt=32 new=32"),
        ("base=no/such/folder", "no/such/folder"),
        ("engine.speculate=20", "engine.speculate must be from 0 to 16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("systems.models.AT_HAND", 1)
    assert systems_train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stage=4", "stage must be from 0 to 3, got 4"),
        ("ranks=0", "ranks must be from 1 to 16"),
        ("batch_size=7", "batch_size=7 cannot be shared by ranks=2; try batch_size=6"),
        ("width=30 heads=4", "width=30 must be an even multiple of heads=4"),
        ("weights=fp8", "weights"),
        ("vocabulary=100", "vocabulary=100 is too small"),
    ],
)
def test_zero_refuses_what_does_not_fit(
    here: Path, words: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert zero_train.main(["+size=smoke", *words.split()]) == 2
    shown = capfd.readouterr()
    assert said in " ".join(shown.err.split())
    assert "Traceback" not in shown.err + shown.out


COMMANDS = (
    "systems.train", "systems.zero.train", "systems.serve", "systems.load",
)  # fmt: skip


def test_help_loads_nothing_heavy(lab_run: Lab) -> None:
    """All commands in one process: what one of them loads, none of them may."""
    process = lab_run.start("-X", "importtime", "-c", ASK_EACH, *COMMANDS)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("usage:") == len(COMMANDS), output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "|" in line}
    assert not {"torch", "matplotlib", "hydra", "httpx", "starlette", "uvicorn"} & imported


def test_the_published_folder_is_read_by_plain_code(lab_run: Lab) -> None:
    """Without this week's classes: two files, a table of names, two lines of arithmetic."""
    from safetensors.torch import load_file

    done = lab_run.once("systems", "+size=smoke")
    assert done.dir is not None
    folder = done.dir / "quantised" / "int4"
    facts = json.loads((folder / "quantized.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    assert facts["format"] == 1
    name = "blocks.0.mlp.up.weight"
    packed, scale, zero = (tensors[f"{name}:{part}"] for part in ("codes", "scale", "zero"))
    outputs, half = packed.shape
    rebuilt = []
    for row in range(outputs):
        for column in range(2 * half):
            byte = int(packed[row, column // 2])
            code = byte >> 4 if column % 2 else byte & 15
            group = column * scale.shape[1] // (2 * half)
            rebuilt.append(float(scale[row, group]) * (code - int(zero[row, group])))
    from systems import packed as ours

    weight = ours.load(folder).state_dict()[name].flatten().tolist()
    assert rebuilt == pytest.approx(weight, rel=1e-5, abs=1e-6)
