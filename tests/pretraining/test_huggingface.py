"""Equal logits on both sides, in both directions, and through files that open without our code."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from labkit import UsageError
from pretraining import GPT, Shape, build_tokenizer, export, from_huggingface, load, to_huggingface
from pretraining.huggingface import halves_to_neighbours, neighbours_to_halves
from pretraining.model import Architecture

TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 20
TOKENS = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(0))


def random_model(architecture: Architecture, vocabulary: int = 300) -> GPT:
    torch.manual_seed(0)
    model = GPT(Shape(vocabulary, 24, 24, 3, 2), architecture).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
def logits(model: torch.nn.Module, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    out = model(tokens)
    return out if isinstance(out, torch.Tensor) else out.logits


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_hugging_face_computes_the_same(architecture: Architecture) -> None:
    model = random_model(architecture)
    theirs = to_huggingface(model)
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-4, rtol=1e-5)
    assert logits(model).std() > 0.1  # nothing has died on the way
    torch.testing.assert_close(logits(from_huggingface(theirs)), logits(model), atol=0, rtol=0)


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_what_we_export_opens_without_our_code(architecture: Architecture, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = build_tokenizer("bpe", "pydoc", TEXT, 300)
    model = random_model(architecture, len(tokenizer))
    export(model, tokenizer, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    tokens = torch.tensor([words.encode("the dog sat")])
    torch.testing.assert_close(logits(theirs, tokens), logits(model, tokens), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(logits(load(tmp_path), tokens), logits(model, tokens))
    config = theirs.config
    assert config.max_position_embeddings == words.model_max_length == 24
    assert (config.eos_token_id, config.pad_token_id) == (words.eos_token_id, words.pad_token_id)
    assert words.eos_token != words.pad_token
    new = theirs.generate(tokens, max_new_tokens=5, do_sample=False)
    assert new.shape[1] <= tokens.shape[1] + 5


def test_weights_of_a_fresh_gpt2_come_over() -> None:
    """Not a round trip of ours: theirs, initialised by them, with biases and gains moved."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=24, n_embd=24, n_layer=2, n_head=4)
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = from_huggingface(theirs)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, NanoChatConfig, NanoChatForCausalLM

    with pytest.raises(UsageError, match="tokens and the model only 100"):
        export(random_model("gpt2", 100), build_tokenizer("bpe", "pydoc", TEXT, 300), tmp_path)
    assert not list(tmp_path.iterdir())
    small = {"vocab_size": 30, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 1}
    with pytest.raises(ValueError, match="more than its sizes"):
        from_huggingface(GPT2LMHeadModel(GPT2Config(**small, activation_function="relu")))
    capped = NanoChatConfig(
        vocab_size=30, hidden_size=8, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=1, final_logit_softcapping=15.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="more than its sizes"):
        from_huggingface(NanoChatForCausalLM(capped))
    with pytest.raises(ValueError, match="only a causal model"):
        to_huggingface(GPT(Shape(30, 8, 8, 1, 1), causal=False))


@pytest.mark.exercise("huggingface.neighbours_to_halves")
def test_rows_are_reordered_within_each_head() -> None:
    """Two heads of four dimensions, by hand: (0 1) and (2 3) become 1, 3 | 0, 2."""
    assert neighbours_to_halves(torch.arange(8), 2).tolist() == [1, 3, 0, 2, 5, 7, 4, 6]
    matrix = torch.randn(8, 5)
    assert torch.equal(neighbours_to_halves(matrix, 2), matrix[[1, 3, 0, 2, 5, 7, 4, 6]])
    assert torch.equal(halves_to_neighbours(neighbours_to_halves(matrix, 2), 2), matrix)


@pytest.mark.exercise("huggingface.neighbours_to_halves")
@pytest.mark.parametrize(("heads", "dim"), [(1, 2), (1, 6), (3, 2), (3, 8), (2, 10), (5, 4)])
@pytest.mark.parametrize("rest", [(), (1,), (7,), (2, 3)])
def test_each_row_comes_from_where_the_equations_say(
    heads: int, dim: int, rest: tuple[int, ...]
) -> None:
    """y_i = x_2i+1 and y_{i+d/2} = x_2i, one row after the other."""
    size = (heads * dim, *rest)
    rows = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = rows.clone()
    found = neighbours_to_halves(rows, heads)
    assert (found.shape, found.dtype) == (rows.shape, torch.float64)
    for h in range(heads):
        for i in range(dim // 2):
            assert torch.equal(found[h * dim + i], rows[h * dim + 2 * i + 1])
            assert torch.equal(found[h * dim + i + dim // 2], rows[h * dim + 2 * i])
    assert torch.equal(rows, given)
    weight = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    leaf = rows.clone().requires_grad_()
    (neighbours_to_halves(leaf, heads) * neighbours_to_halves(weight, heads)).sum().backward()
    assert torch.equal(leaf.grad, weight)  # type: ignore[arg-type]


@pytest.mark.exercise("huggingface.neighbours_to_halves")
def test_rows_are_reordered_where_they_are() -> None:
    with FakeTensorMode() as fake, torch.device("cuda"):
        rows = torch.zeros(12, 5)
    with fake:
        assert neighbours_to_halves(rows, 3).device.type == "cuda"


@pytest.mark.exercise("huggingface.neighbours_to_halves")
def test_nanochat_turns_the_reordered_as_we_turn_ours() -> None:
    from transformers.models.nanochat.modeling_nanochat import apply_rotary_pos_emb

    from attention import rotary_tables
    from pretraining.model import rotate

    torch.manual_seed(0)
    x = torch.randn(1, 6, 2, 8)  # (B, T, H, d)
    cos, sin = rotary_tables(torch.arange(6), 8)
    ours = rotate(x, torch.complex(cos, sin)[:, None]).flatten(2).mT  # (B, C, T)
    reordered = neighbours_to_halves(x.flatten(2)[0].mT, 2).mT.view(1, 6, 2, 8)
    doubled = [torch.cat([table, table], dim=-1)[None] for table in (cos, sin)]
    theirs, _ = apply_rotary_pos_emb(reordered.transpose(1, 2), reordered.transpose(1, 2), *doubled)
    expected = neighbours_to_halves(ours[0], 2).mT.view(1, 6, 2, 8).transpose(1, 2)
    torch.testing.assert_close(theirs, expected)


SMALL = {
    "gpt2": {"vocab_size": 37, "n_positions": 24, "n_embd": 12, "n_layer": 2, "n_head": 3},
    "nanochat": {
        "vocab_size": 37, "max_position_embeddings": 24, "hidden_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 48, "final_logit_softcapping": None,
    },
}  # fmt: skip


def theirs_of(kind: str, **changes: Any) -> Any:
    """A small model of theirs whose weights are all away from 0, every parameter its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SMALL[kind] | changes))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return theirs.eval()


def other_values(name: str, value: Any) -> list[Any]:
    """What a field of a config might be instead of `value`."""
    from transformers.activations import ACT2FN

    if name in ("activation_function", "hidden_act"):
        return sorted(set(ACT2FN) - {value})
    if name == "rope_parameters":
        return [
            {"rope_type": "default", "rope_theta": 500.0},
            {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0},
        ]
    if name == "num_key_value_heads":
        return [1]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, 2 * value]
    if isinstance(value, float):
        return [10 * value + 0.1]
    return [3, 0.5, "x"] if value is None else []


REFUSED = {
    "gpt2": {
        "activation_function", "n_inner", "layer_norm_epsilon", "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx", "add_cross_attention", "is_encoder_decoder",
        "tie_word_embeddings", "chunk_size_feed_forward",
    },
    "nanochat": {
        "hidden_act", "intermediate_size", "num_key_value_heads", "rms_norm_eps",
        "rope_parameters", "final_logit_softcapping", "attention_bias", "is_encoder_decoder",
        "chunk_size_feed_forward",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ["gpt2", "nanochat"])
def test_every_field_of_a_config_is_used_or_refused_by_name(kind: str) -> None:
    """Each is changed in turn; either our logits are theirs, or the field is named."""
    tokens, refused, loaded = TOKENS[:, :12] % 37, set(), set()
    fields = theirs_of(kind).config.to_dict()
    for name in fields.keys() - (SMALL[kind].keys() - REFUSED[kind]):  # all but the sizes
        for other in other_values(name, fields[name]):
            try:
                theirs = theirs_of(kind, **{name: other})
                expected = logits(theirs, tokens)
            except Exception:
                continue  # the library itself has no such model
            try:
                ours = from_huggingface(theirs)
            except ValueError as error:
                refused |= {name} if f"{name}=" in str(error) else {f"unnamed: {name}, {error}"}
            else:
                torch.testing.assert_close(
                    logits(ours, tokens), expected, atol=1e-4, rtol=1e-4,
                    msg=lambda text, field=f"{name}={other!r}": f"{field}: {text}",
                )  # fmt: skip
                loaded.add(name)
    assert refused == REFUSED[kind]
    assert {"initializer_range", "use_cache", "eos_token_id"} <= loaded


@pytest.mark.parametrize("kind", ["gpt2", "nanochat"])
def test_sizes_are_all_used(kind: str) -> None:
    names = list(SMALL[kind])[:5]
    other = dict(zip(names, (41, 30, 24, 1, 2), strict=True))
    if kind == "nanochat":
        other |= {"intermediate_size": 96}
    theirs, tokens = theirs_of(kind, **other), torch.arange(30)[None]
    ours = from_huggingface(theirs)
    assert ours.shape == Shape(41, 30, 24, 1, 2)
    torch.testing.assert_close(logits(ours, tokens), logits(theirs, tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "gelu_fast"]
)
def test_one_activation_has_many_names(name: str, tmp_path: Path) -> None:
    """Week 8 saves the faster of two names of the same function."""
    theirs = theirs_of("gpt2", activation_function=name)
    theirs.save_pretrained(tmp_path)
    tokens = TOKENS % 37
    for ours in (from_huggingface(theirs), load(tmp_path)):
        torch.testing.assert_close(
            logits(ours, tokens), logits(theirs, tokens), atol=1e-4, rtol=1e-4
        )


def test_fields_that_nobody_knows_are_refused_and_those_of_old_files_are_not() -> None:
    theirs = theirs_of("gpt2")
    theirs.config.n_ctx, theirs.config.task_specific_params = 24, {"text-generation": {}}
    torch.testing.assert_close(
        logits(from_huggingface(theirs), TOKENS % 37), logits(theirs, TOKENS % 37),
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip
    theirs.config.sliding_window = 8
    with pytest.raises(ValueError, match="sliding_window=8"):
        from_huggingface(theirs)
    with pytest.raises(ValueError, match="head_dim=8"):
        from_huggingface(theirs_of("nanochat", head_dim=8))


def test_weights_more_or_fewer_than_ours_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import GPT2Model

    untied = theirs_of("gpt2")
    untied.lm_head.weight = torch.nn.Parameter(torch.randn(37, 12))  # whatever its config says
    with pytest.raises(ValueError, match="the head's weights are not the embedding's"):
        from_huggingface(untied)
    extra = theirs_of("gpt2")
    extra.transformer.h[1].attn.c_attn.lora = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"has weights that ours has not: .*lora"):
        from_huggingface(extra)
    with pytest.raises(ValueError, match="weights"):
        from_huggingface(GPT2Model(theirs_of("gpt2").config))
    theirs_of("nanochat").save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole, name = load_file(file), "model.layers.1.mlp.fc1.weight"
    save_file({k: v for k, v in whole.items() if k != name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"missing_keys {name}"):
        load(tmp_path)
    save_file({**whole, "model.gate": torch.ones(2)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"unexpected_keys model\.gate"):
        load(tmp_path)
