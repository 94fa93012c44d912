"""Quantised models in memory and on disk: layers, round trip, and folders that are damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from labkit import UsageError
from pretraining import GPT, Shape, export, to_huggingface
from pretraining import GPT as Model
from systems import packed
from systems.models import open_folder
from systems.quantize import round_matrix
from systems.schemes import SCHEMES, quantize_model, scheme_of, watch
from systems.settings import QuantizeSettings

SETTINGS = QuantizeSettings(group=8, threshold=3.0)


@pytest.fixture(scope="module")
def text() -> Tensor:
    return torch.randint(50, (6, 20), generator=torch.Generator().manual_seed(2))


def logits(model: GPT, text: Tensor) -> Tensor:
    with torch.no_grad():
        return model(text)


@pytest.mark.parametrize("name", list(SCHEMES))
def test_what_is_written_is_what_is_opened(
    name: str, gpt: GPT, text: Tensor, tmp_path: Path
) -> None:
    """The logits of the opened folder are those of the dequantised matrices, put in by hand."""
    before = {k: v.clone() for k, v in gpt.state_dict().items()}
    scheme = SCHEMES[name]
    matrices = quantize_model(gpt, scheme, SETTINGS, text)
    assert all(torch.equal(v, before[k]) for k, v in gpt.state_dict().items())
    assert len(matrices) == 1 + 4 * 2
    packed.save(tmp_path, gpt, matrices, scheme, SETTINGS.threshold)
    opened = packed.load(tmp_path)
    by_hand = packed.clone(gpt)
    for key, matrix in matrices.items():
        by_hand.state_dict()[key].copy_(matrix.dequantize())
    close = 0.5 if scheme.inputs else 1e-5  # LLM.int8 rounds the inputs as well
    difference = (logits(opened, text) - logits(by_hand, text)).abs()
    assert difference.mean() < close
    assert (difference.max() > 1e-4) == scheme.inputs
    assert (logits(opened, text) - logits(gpt, text)).abs().max() > 1e-3
    assert opened.head.weight is opened.embedding.weight


def test_bytes_follow_from_the_scheme(gpt: GPT, text: Tensor, tmp_path: Path) -> None:
    whole = packed.as_float(gpt, tmp_path / "float32")
    sizes = {}
    for name, scheme in SCHEMES.items():
        matrices = quantize_model(gpt, scheme, QuantizeSettings(group=16), text)
        packed.save(tmp_path / name, gpt, matrices, scheme, 6.0)
        from safetensors.torch import load_file

        tensors = load_file(tmp_path / name / packed.TENSORS)
        codes = {k: v for k, v in tensors.items() if k.endswith(":codes") and "blocks" in k}
        numbers = sum(
            p.numel() for k, p in gpt.named_parameters() if "blocks" in k and p.dim() == 2
        )
        assert sum(v.numel() for v in codes.values()) == numbers * scheme.bits // 8
        sizes[name] = packed.size_on_disk(tmp_path / name)
    assert sizes["int4"] == sizes["gptq"] < sizes["int8"] < whole
    assert sizes["int8_tensor"] < sizes["int8"]


def test_the_tied_head_is_rounded_once(gpt: GPT) -> None:
    matrices = quantize_model(gpt, SCHEMES["int8"], SETTINGS)
    assert "head.weight" not in matrices
    assert matrices["embedding.weight"].scale.shape == (50, 1)


def test_conv1d_is_rounded_by_output_channel(gpt: GPT, tmp_path: Path) -> None:
    """Hugging Face's GPT-2 holds its matrices transposed: a channel there is a column."""
    theirs = to_huggingface(gpt)
    theirs.save_pretrained(tmp_path)
    from pretraining import load

    ours = quantize_model(load(tmp_path), SCHEMES["int8"], SETTINGS)
    conv = theirs.transformer.h[1].mlp.c_fc.weight.detach()  # type: ignore[union-attr]
    assert conv.shape == (16, 64)
    expected = conv.abs().amax(dim=0) / 127
    torch.testing.assert_close(ours["blocks.1.mlp.up.weight"].scale.squeeze(1), expected)


def test_calibration_sees_the_inputs_of_each_layer(gpt: GPT, text: Tensor) -> None:
    block = gpt.blocks[0]
    with torch.no_grad():
        hidden = gpt.embedding(text) + gpt.positions.weight[:20]  # type: ignore[union-attr]
        seen = watch(block, [hidden[:4], hidden[4:]])
        x = block.norm1(hidden).flatten(0, 1)
    hessian, mean = seen["attention.qkv"]
    torch.testing.assert_close(hessian.float(), 2 * x.T @ x / len(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mean, x.abs().mean(0))
    assert seen["mlp.down"][0].shape == (64, 64)
    assert not block.attention.qkv._forward_pre_hooks


def test_later_layers_are_calibrated_on_rounded_ones(gpt: GPT, text: Tensor) -> None:
    """GPTQ of the second layer alone, on inputs that the rounded first layer gives."""
    from systems.gptq import gptq

    matrices = quantize_model(gpt, SCHEMES["gptq"], SETTINGS, text)
    model = packed.clone(gpt)
    with torch.no_grad():
        for key, matrix in matrices.items():
            if key.startswith("blocks.0."):
                model.state_dict()[key].copy_(matrix.dequantize())
        hidden = model.blocks[0](
            model.embedding(text) + model.positions.weight[:20],
            None,
            True,
            None,  # type: ignore[union-attr]
        )
        hessian, _ = watch(model.blocks[1], [hidden])["mlp.up"]
        layer = model.blocks[1].mlp.up
        expected = gptq(layer.weight, hessian, 4, "zero_point", 8).dequantize()
    found = matrices["blocks.1.mlp.up.weight"].dequantize()
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_llm_int8_rounds_inputs_where_the_product_is(
    gpt: GPT, text: Tensor, tmp_path: Path
) -> None:
    matrices = quantize_model(gpt, SCHEMES["llm_int8"], SETTINGS)
    errors = []
    for threshold in (1e9, 0.5, 1e-9):
        packed.save(tmp_path, gpt, matrices, SCHEMES["llm_int8"], threshold)
        opened = packed.load(tmp_path)
        errors.append(float((logits(opened, text) - logits(gpt, text)).abs().mean()))
    assert errors[0] > errors[2], "with every input an outlier only the weights are rounded"


def folder_of(gpt: GPT, tmp_path: Path) -> Path:
    packed.save(tmp_path, gpt, quantize_model(gpt, SCHEMES["int4"], SETTINGS), SCHEMES["int4"], 6.0)
    return tmp_path


def test_a_file_cut_short_is_refused(gpt: GPT, tmp_path: Path) -> None:
    folder = folder_of(gpt, tmp_path)
    file = folder / packed.TENSORS
    whole = file.read_bytes()
    draw = random.Random(0)
    for length in (0, 5, *(draw.randrange(len(whole)) for _ in range(10)), len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(
            UsageError, match=r"was cut short or changed.*systems.train \+size=tiny"
        ):
            packed.load(folder)
    for _ in range(10):
        place = draw.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UsageError, match="cut short or changed"):
            packed.load(folder)
    file.unlink()
    with pytest.raises(UsageError, match="holds no quantised model"):
        packed.load(folder)


def test_facts_that_do_not_fit_are_refused(gpt: GPT, tmp_path: Path) -> None:
    folder = folder_of(gpt, tmp_path)
    file = folder / packed.FACTS
    facts = json.loads(file.read_text())
    for change, said in (
        ({"format": 2}, "format 2; this code reads format 1"),
        ({"scheme": {"bits": 4}}, "holds no quantised model"),
        ({"shape": {**facts["shape"], "width": 32}}, "holds no quantised model"),
        ({"bits": {}}, "not those of its shape"),
        ({"bits": {**facts["bits"], "blocks.7.mlp.up.weight": 4}}, "holds no quantised model"),
    ):
        file.write_text(json.dumps(facts | change))
        with pytest.raises(UsageError, match=said):
            packed.load(folder)
    for text in ("", "{", "[]", json.dumps({"format": 1})):
        file.write_text(text)
        with pytest.raises(UsageError, match="holds no quantised model"):
            packed.load(folder)


def test_folders_are_opened_by_what_they_hold(gpt: GPT, tmp_path: Path) -> None:
    from alignment.base import make_tokenizer

    tokenizer = make_tokenizer(["some words"], 300)
    torch.manual_seed(0)
    model = Model(Shape(len(tokenizer), 32, 16, 1, 2)).eval()
    from pretraining import build_tokenizer

    mine = build_tokenizer("bpe", "pydoc", "some words", 300)
    model = Model(Shape(len(mine), 32, 16, 1, 2)).eval()
    export(model, mine, tmp_path / "float")
    scheme = SCHEMES["int8"]
    packed.save(
        tmp_path / "int8", model, quantize_model(model, scheme, SETTINGS), scheme, 6.0, mine
    )
    x = torch.randint(200, (1, 9))
    for name, close in (("float", 1e-6), ("int8", 0.05)):
        opened, found = open_folder(tmp_path / name)
        assert found.encode("words") == mine.encode("words")
        assert (logits(opened, x) - logits(model, x)).abs().max() < close
    (tmp_path / "float" / "model.safetensors").write_bytes(b"")
    for name in ("float", "nowhere"):
        with pytest.raises(UsageError):
            open_folder(tmp_path / name)


def test_a_scheme_that_is_unknown_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean gptq"):
        scheme_of("gtpq")
    with pytest.raises(ValueError, match="needs calibration text"):
        quantize_model(Model(Shape(9, 8, 8, 1, 2)), SCHEMES["gptq"], SETTINGS)
    weight = torch.zeros(3, 4)
    assert round_matrix(weight, 4, "zero_point", 2).dequantize().count_nonzero() == 0
