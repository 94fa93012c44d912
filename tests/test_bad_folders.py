"""Folders of weights with one fault each: the message names the folder and what is wrong with it.

Two kinds of fault went unseen, and gave a model of random numbers: weights that are missing, which
transformers fills in, and a tokenizer that is missing, in whose place it makes an empty one.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment.base import load_base, make_tokenizer
from diffusion.pipeline import Pipeline, Settings
from labkit import UsageError
from pytorch_mastery import CNN, load_classifier, save_classifier

Fault = Callable[[Path], object]
WEIGHTS = "model.safetensors"


def weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / WEIGHTS
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(tensors: dict[str, Any], ending: str) -> dict[str, Any]:
    """All but the last one with such a name."""
    last = max(name for name in tensors if name.endswith(ending))
    return {name: value for name, value in tensors.items() if name != last}


def settings(folder: Path, **changed: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def write(name: str, raw: bytes) -> Fault:
    return lambda folder: (folder / name).write_bytes(raw)


def remove(*names: str) -> Fault:
    return lambda folder: [(folder / name).unlink() for name in names]


def index(text: str) -> Fault:
    def fault(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / f"{WEIGHTS}.index.json").write_text(text)

    return fault


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}))


ANY: dict[str, Fault] = {
    "no weights": remove(WEIGHTS),
    "no tensors": partial(weights, change=lambda w: {}),
    "empty file": write(WEIGHTS, b""),
    "cut": lambda folder: write(WEIGHTS, (folder / WEIGHTS).read_bytes()[:-9])(folder),
    "garbage": write(WEIGHTS, b"garbage" * 50),
    "one weight fewer": partial(weights, change=lambda w: without(w, ".weight")),
    "one weight more": partial(weights, change=lambda w: w | {"more": torch.ones(3)}),
    "nan": partial(weights, change=lambda w: {k: v * torch.nan for k, v in w.items()}),
    "no config": remove("config.json"),
    "config is garbage": write("config.json", b"garbage"),
    "config is a list": write("config.json", b"[1]"),
    "config is null": write("config.json", b"null"),
    "config is not text": write("config.json", b"\xff\xfe\x00"),
    "config is empty": write("config.json", b"{}"),
}
"""What can be wrong with every folder of weights."""

LANGUAGE_MODEL = ANY | {
    "another width": partial(settings, n_embd=32),
    "more layers": partial(settings, n_layer=2),
    "fewer layers": partial(settings, n_layer=0),
    "width is a text": partial(settings, n_embd="wide"),
    "heads that do not divide": partial(settings, n_head=3),
    "no heads": partial(settings, n_head=0),
    "unknown activation": partial(settings, activation_function="nope"),
    "unknown kind": partial(settings, model_type="nope"),
    "another kind": partial(settings, model_type="bert"),
    "index is empty": index("{}"),
    "index is garbage": index("nope"),
    "index names no file": index('{"metadata": {}, "weight_map": {"a": "b.safetensors"}}'),
    "a pickle": pickled,
    "no tokenizer": remove("tokenizer.json", "tokenizer_config.json"),
    "half a tokenizer": remove("tokenizer.json"),
    "tokenizer is garbage": write("tokenizer.json", b"garbage"),
    "tokenizer is empty": write("tokenizer.json", b"{}"),
    "tokenizer's config is a list": write("tokenizer_config.json", b"[]"),
    "generation config is a list": write("generation_config.json", b"[]"),
}
CLASSIFIER = ANY | {
    "another width": partial(settings, width=8),
    "unknown key": partial(settings, nonsense=1),
    "width is a text": partial(settings, width="wide"),
    "no channels": partial(settings, channels=0),
    "channels are null": partial(settings, channels=None),
}
SETTINGS = Settings("eps", "cosine", 50, 0.0, 1.0, "ddim", 4, 2.0, (1, 8, 8))
PIPELINE = ANY | {
    "unknown key": partial(settings, network={"nonsense": 1}),
    "unknown setting": lambda f: settings(f, settings=asdict(SETTINGS) | {"nonsense": 1}),
    "a setting fewer": lambda f: settings(f, settings={"image": SETTINGS.image}),
    "settings are null": partial(settings, settings=None),
}


class FakeRun:
    """As much of a Run as `load_base` uses."""

    device = torch.device("cpu")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer(["some words to learn from"] * 9, 280)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=8, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(CNN(1, 3, 4, [0.2], [0.3]), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusion.model import UNet

    folder = tmp_path_factory.mktemp("pipeline")
    Pipeline(UNet(1, 3, 8, [1], 1), SETTINGS).save(folder)
    return folder


def refused(good: Path, fault: Fault, folder: Path, load: Callable[[Path], object]) -> str:
    """The message for a copy of a good folder with a fault in it."""
    shutil.copytree(good, folder, dirs_exist_ok=True)
    load(folder)  # or the refusal below would show nothing
    fault(folder)
    with pytest.raises(UsageError) as caught:
        load(folder)
    return str(caught.value)


@pytest.mark.parametrize("fault", LANGUAGE_MODEL)
def test_base(fault: str, language_model: Path, tmp_path: Path) -> None:
    load = lambda folder: load_base(str(folder), FakeRun(), [])  # type: ignore[arg-type]  # noqa: E731
    message = refused(language_model, LANGUAGE_MODEL[fault], tmp_path, load)
    assert str(tmp_path) in message
    assert len(message) < 900


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no tensors", "they lack lm_head.weight, transformer.h.0."),
        ("more layers", "they lack transformer.h.1."),
        ("one weight more", "have, in addition to those of the model, more."),
        ("another kind", "they lack bert.embeddings"),
        ("no tokenizer", "has no tokenizer"),
        ("nan", "has values that are not finite"),
        ("a pickle", "UnpicklingError"),
    ],
)
def test_what_a_base_lacks_is_said(
    fault: str, said: str, language_model: Path, tmp_path: Path
) -> None:
    load = lambda folder: load_base(str(folder), FakeRun(), [])  # type: ignore[arg-type]  # noqa: E731
    assert said in refused(language_model, LANGUAGE_MODEL[fault], tmp_path, load)


@pytest.mark.parametrize("fault", CLASSIFIER)
def test_classifier(fault: str, classifier: Path, tmp_path: Path) -> None:
    message = refused(classifier, CLASSIFIER[fault], tmp_path, load_classifier)
    assert str(tmp_path) in message


@pytest.mark.parametrize("fault", PIPELINE)
def test_pipeline(fault: str, pipeline: Path, tmp_path: Path) -> None:
    message = refused(pipeline, PIPELINE[fault], tmp_path, Pipeline.load)
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    "fault", ["garbage", "empty file", "config is null", "index is empty", "a pickle", "no heads"]
)
def test_week_sevens_own_loader(fault: str, language_model: Path, tmp_path: Path) -> None:
    from pretraining import load

    message = refused(language_model, LANGUAGE_MODEL[fault], tmp_path, load)
    assert str(tmp_path) in message


def test_a_classifier_of_other_pictures_does_not_judge(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit import data
    from pytorch_mastery.distance import judge

    class ArtifactRun(FakeRun):
        def artifact(self, week: str, data: str) -> Path:
            return classifier

    with pytest.raises(UsageError, match="1 channels and 3 classes, and digits has 1 and 10"):
        judge(ArtifactRun(), data.load("digits", kind=data.ImageData))  # type: ignore[arg-type]
