"""Files of adapters: whatever peft can save gives peft's own logits here, or is refused by name."""

import json
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from alignment.adapter import load_adapter, save_adapter
from alignment.lora import add_lora, lora_layers
from labkit import UsageError

TARGETS = ["c_attn", "c_proj"]
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
PLAIN: dict[str, Any] = {
    "r": 4, "lora_alpha": 12, "target_modules": TARGETS, "task_type": "CAUSAL_LM",
    "fan_in_fan_out": True,
}  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "task_type": [None, "SEQ_CLS", "FEATURE_EXTRACTION"],
    "peft_type": ["LOHA"],
    "auto_mapping": [{"base_model_class": "GPT2LMHeadModel", "parent_library": "transformers"}],
    "peft_version": ["0.0.1"],
    "base_model_name_or_path": ["somewhere"],
    "revision": ["main"],
    "inference_mode": [False],
    "r": [2, 9],
    "target_modules": [["c_attn"], r".*h\.1.*c_attn", [*TARGETS, "lm_head"], [*TARGETS, "c_fc"]],
    "exclude_modules": [["c_proj"], r".*h\.0.*"],
    "lora_alpha": [6],
    "lora_dropout": [0.5],
    "fan_in_fan_out": [False],
    "bias": ["all", "lora_only"],
    "use_rslora": [True],
    "modules_to_save": [["lm_head"], ["ln_f"]],
    "init_lora_weights": [False, "gaussian", "orthogonal", "pissa", "olora", "loftq"],
    "layers_to_transform": [[1], 0],
    "layers_pattern": ["h"],
    "rank_pattern": [{"c_attn": 2}],
    "alpha_pattern": [{"c_attn": 24}, {r"h\.1\.attn\.c_attn": 24}],
    "megatron_config": [{"tensor_model_parallel_size": 1}],
    "megatron_core": ["elsewhere"],
    "trainable_token_indices": [[1, 2]],
    "loftq_config": [{"loftq_bits": 4}],
    "eva_config": [{"rho": 1.0}],
    "corda_config": [{"corda_method": "ipm"}],
    "lora_ga_config": [{"direction": "ArB2r"}],
    "use_dora": [True],
    "velora_config": [{"rank": 1}],
    "alora_invocation_tokens": [[1, 2]],
    "use_qalora": [True],
    "qalora_group_size": [8],
    "monteclora_config": [{"num_samples": 1}],
    "layer_replication": [[[0, 2], [1, 2]]],
    "runtime_config": [{"ephemeral_gpu_offload": True}],
    "lora_bias": [True],
    "target_parameters": [["transformer.h.0.attn.c_attn.weight"]],
    "use_bdlora": [{"nblocks": 1}],
    "arrow_config": [{"top_k": 1}],
    "kasa_config": [{"beta": 0.1}],
    "ensure_weight_tying": [True],
}
"""Every setting of peft's LoraConfig with values that are not its default."""
CASES = [(name, value) for name, values in VALUES.items() for value in values]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """peft warns of most of these settings, which is its business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def ours(make_gpt2: Callable[..., Any]) -> Any:
    model = make_gpt2()
    add_lora(model, TARGETS, 4, 12.0)
    return model


def unchanged(model: Any, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], v) for k, v in before.items())


def load_or_refuse(model: Any, folder: Path, expected: torch.Tensor | None) -> bool:
    """Whether the adapter was read; the logits are then `expected`, else the model unchanged."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        load_adapter(model, folder)
    except UsageError:
        assert unchanged(model, before), "refused, and yet something was filled in"
        return False
    assert expected is not None, "peft itself cannot read it"
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, expected, atol=1e-5, rtol=1e-5)
    return True


def test_the_list_of_settings_is_whole() -> None:
    """A new version of peft with a new setting must be looked at: then this fails."""
    assert set(VALUES) == {field.name for field in fields(LoraConfig)}


def peft_saves(base: Any, folder: Path, settings: dict[str, Any]) -> torch.Tensor:
    """An adapter that peft made and wrote, everything that it trains away from its start."""
    torch.manual_seed(1)
    model = get_peft_model(base, LoraConfig(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn_like(parameter)
        logits: torch.Tensor = model(TOKENS).logits
    model.save_pretrained(str(folder))
    return logits


NOT_MADE = {
    "megatron_config", "runtime_config", "use_bdlora", "arrow_config", "kasa_config",
    "layer_replication", "target_parameters", "peft_type",
}  # fmt: skip
"""Settings with which peft makes nothing of this small GPT-2; they are tried in the file below."""
MADE = [
    (name, value)
    for name, value in CASES
    if name not in NOT_MADE and value not in ("olora", "loftq")
]


@pytest.mark.parametrize(("name", "value"), MADE)
def test_what_peft_saves_with_a_setting_is_applied_or_refused(
    make_gpt2: Callable[..., Any], ours: Any, tmp_path: Path, name: str, value: Any
) -> None:
    settings = PLAIN | {name: value}
    if name == "layers_pattern":
        settings["layers_to_transform"] = [1]
    expected = peft_saves(make_gpt2(), tmp_path, settings)
    read = load_or_refuse(ours, tmp_path, expected)
    if name in ("use_rslora", "use_dora", "bias", "lora_bias", "r", "trainable_token_indices"):
        assert not read
    if name in ("lora_dropout", "fan_in_fan_out", "megatron_core"):
        assert read


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_setting_changed_in_the_file_counts_as_it_does_for_peft(
    make_gpt2: Callable[..., Any], ours: Any, tmp_path: Path, name: str, value: Any
) -> None:
    peft_saves(make_gpt2(), tmp_path, PLAIN)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    try:
        torch.manual_seed(2)
        with torch.no_grad():
            theirs = PeftModel.from_pretrained(make_gpt2(), str(tmp_path)).eval()
            expected = theirs(TOKENS).logits
    except Exception:
        expected = None
    load_or_refuse(ours, tmp_path, expected)


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"r": 9, "use_rslora": True}, 36.0),
        ({"init_lora_weights": "gaussian"}, 12.0),
        ({"r": 2, "lora_alpha": 7, "rank_pattern": {"c_attn": 4, "c_proj": 4}}, 7.0),
        ({"lora_alpha": 1, "alpha_pattern": {"c_attn": 12, "c_proj": 12}}, 12.0),
        ({"target_modules": "all-linear", "exclude_modules": ["c_fc"]}, 12.0),
    ],
)
def test_settings_that_are_used_give_pefts_logits(
    make_gpt2: Callable[..., Any], tmp_path: Path, settings: dict[str, Any], alpha: float
) -> None:
    expected = peft_saves(make_gpt2(), tmp_path, PLAIN | settings)
    model = make_gpt2()
    add_lora(model, TARGETS, 9 if settings.get("r") == 9 else 4, alpha)
    assert load_or_refuse(model, tmp_path, expected)


def test_rank_stabilised_lora_is_told_from_plain(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    """alpha / sqrt(9) is three times alpha / 9: the same numbers in the file, another model."""
    peft_saves(make_gpt2(), tmp_path, PLAIN | {"r": 9, "use_rslora": True})
    model = make_gpt2()
    add_lora(model, TARGETS, 9, 12.0)
    with pytest.raises(UsageError, match=r"alpha / rank 1.33.*found 9 and 4;.*alpha=36"):
        load_adapter(model, tmp_path)


def test_layers_of_several_ranks_are_saved_for_peft(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    model = make_gpt2()
    add_lora(model, ["c_attn"], 2, 4.0)
    add_lora(model, ["c_fc"], 5, 30.0)
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            torch.nn.init.normal_(layer.b)
        expected = model(TOKENS).logits
    save_adapter(model, tmp_path)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(make_gpt2(), str(tmp_path)).eval()
        torch.testing.assert_close(theirs(TOKENS).logits, expected, atol=1e-5, rtol=1e-5)
    again = make_gpt2()
    add_lora(again, ["c_attn"], 2, 4.0)
    add_lora(again, ["c_fc"], 5, 30.0)
    assert load_or_refuse(again, tmp_path, expected)


def test_a_single_layer_of_a_name_is_saved_for_peft(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    """c_proj occurs twice in a block; only one of the two has an update."""
    from alignment.lora import LoRALayer

    def once() -> Any:
        model = make_gpt2().requires_grad_(False)
        attention = model.transformer.h[0].attn
        attention.c_proj = LoRALayer(
            attention.c_proj, 2, 3.0, generator=torch.Generator().manual_seed(0)
        )
        return model

    model = once()
    torch.nn.init.ones_(model.transformer.h[0].attn.c_proj.b)
    save_adapter(model, tmp_path)
    with torch.no_grad():
        expected = model(TOKENS).logits
        theirs = PeftModel.from_pretrained(make_gpt2(), str(tmp_path)).eval()
        torch.testing.assert_close(theirs(TOKENS).logits, expected, atol=1e-5, rtol=1e-5)
    assert load_or_refuse(once(), tmp_path, expected)


def test_no_tensor_is_dropped_unseen(
    make_gpt2: Callable[..., Any], ours: Any, tmp_path: Path
) -> None:
    expected = peft_saves(make_gpt2(), tmp_path, PLAIN)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.transformer.ln_f.weight"
    own = make_gpt2().transformer.ln_f.weight.detach()
    save_file({**tensors, name: own.clone()}, file, {"format": "pt"})
    assert load_or_refuse(ours, tmp_path, expected), "the model's own weight changes nothing"
    save_file({**tensors, name: own + 1}, file, {"format": "pt"})
    with pytest.raises(UsageError, match=r"transformer\.ln_f\.weight, which differs"):
        load_adapter(ours, tmp_path)
    lost = min(tensors)
    save_file({k: v for k, v in tensors.items() if k != lost}, file, {"format": "pt"})
    assert not load_or_refuse(ours, tmp_path, None)


def test_a_setting_of_a_later_peft_is_refused(
    make_gpt2: Callable[..., Any], ours: Any, tmp_path: Path
) -> None:
    expected = peft_saves(make_gpt2(), tmp_path, PLAIN)
    file = tmp_path / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"use_tomorrow": False}))
    assert load_or_refuse(ours, tmp_path, expected), "it is off"
    file.write_text(json.dumps(settings | {"use_tomorrow": True}))
    with pytest.raises(UsageError, match="has use_tomorrow=True, which load_adapter does not know"):
        load_adapter(ours, tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", None),
        ("adapter_config.json", b"{"),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b'{"r": 0}'),
        ("adapter_config.json", b"\xff"),
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", b"nothing"),
    ],
)
def test_files_that_are_not_there_or_broken_are_named(
    make_gpt2: Callable[..., Any], ours: Any, tmp_path: Path, file: str, content: bytes | None
) -> None:
    peft_saves(make_gpt2(), tmp_path, PLAIN)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UsageError, match=str(tmp_path)):
        load_adapter(ours, tmp_path)


def test_a_model_without_an_update_has_nothing_to_save(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no LoRALayer to save"):
        save_adapter(make_gpt2(), tmp_path)


def test_lora_on_a_base_in_bf16_is_pefts(make_gpt2: Callable[..., Any], tmp_path: Path) -> None:
    """A and B stay in fp32 beside it, as in peft."""
    peft_saves(make_gpt2(), tmp_path, PLAIN)
    base = make_gpt2().to(torch.bfloat16)
    theirs = PeftModel.from_pretrained(make_gpt2().to(torch.bfloat16), str(tmp_path)).eval()
    add_lora(base, TARGETS, 4, 12.0)
    load_adapter(base, tmp_path)
    with torch.no_grad():
        found = base(TOKENS).logits
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, theirs(TOKENS).logits)
