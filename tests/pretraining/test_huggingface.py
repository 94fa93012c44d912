"""Equal logits on both sides, in both directions, and through files that open without our code."""

from pathlib import Path

import pytest
import torch

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
