"""Windows and what follows them, epochs that miss nothing, and tokenizers that lose nothing."""

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from labkit import UsageError
from labkit.data import TextData
from pretraining import build_tokenizer, encode, sample_batch
from pretraining.data import inputs_and_targets
from pretraining.tokenizer import END, MASK, PAD, prepare_tokenizer

TEXT = "To be, or not to be:\nthat is the question.\n\n  Indeed — it is.\n" * 8


@pytest.mark.exercise("data.inputs_and_targets")
def test_targets_are_the_tokens_that_follow() -> None:
    tokens = 10 * torch.arange(12)
    x, y = inputs_and_targets(tokens, torch.tensor([0, 7, 3]), 4)
    assert x.tolist() == [[0, 10, 20, 30], [70, 80, 90, 100], [30, 40, 50, 60]]
    assert y.tolist() == [[10, 20, 30, 40], [80, 90, 100, 110], [40, 50, 60, 70]]


@pytest.mark.exercise("data.inputs_and_targets")
def test_shift_moves_the_targets_only() -> None:
    x, y = inputs_and_targets(torch.arange(10), torch.tensor([2]), 3, shift=2)
    assert (x.tolist(), y.tolist()) == ([[2, 3, 4]], [[4, 5, 6]])


@pytest.mark.exercise("data.inputs_and_targets")
def test_every_row_is_a_slice_of_the_text() -> None:
    tokens = torch.randint(100, (200,), generator=torch.Generator().manual_seed(0))
    starts = torch.randint(180, (9,), generator=torch.Generator().manual_seed(1))
    x, y = inputs_and_targets(tokens, starts, 16)
    for i, start in enumerate(starts.tolist()):
        assert torch.equal(x[i], tokens[start : start + 16])
        assert torch.equal(y[i], tokens[start + 1 : start + 17])


@pytest.mark.exercise("data.inputs_and_targets")
@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize(("count", "length"), [(1, 1), (1, 5), (4, 1), (3, 5)])
def test_windows_may_reach_to_the_last_token(count: int, length: int, shift: int) -> None:
    """Token and place by loops; the text and the starts stay as they are, and their types."""
    tokens = torch.randint(99, (20,), generator=torch.Generator().manual_seed(0)).to(torch.int16)
    starts = torch.tensor([20 - length - shift, 0, 7, 2])[:count]
    given = tokens.clone(), starts.clone()
    x, y = inputs_and_targets(tokens, starts, length, shift)
    text = tokens.tolist()
    assert x.tolist() == [[text[s + t] for t in range(length)] for s in starts.tolist()]
    assert y.tolist() == [[text[s + t + shift] for t in range(length)] for s in starts.tolist()]
    assert (x.dtype, y.dtype) == (torch.int16, torch.int16)
    assert torch.equal(tokens, given[0])
    assert torch.equal(starts, given[1])


@pytest.mark.exercise("data.inputs_and_targets")
def test_windows_are_cut_where_the_text_is() -> None:
    """Fake tensors of a GPU meet nothing that lies on the CPU."""
    with FakeTensorMode() as fake, torch.device("cuda"):
        tokens, starts = torch.zeros(30, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    with fake:  # outside of the default device
        x, y = inputs_and_targets(tokens, starts, 4)
    assert (x.device.type, y.device.type) == ("cuda", "cuda")


def test_an_epoch_sees_each_token_at_most_once_and_nearly_all() -> None:
    tokens = torch.arange(1000)
    seen = torch.cat([sample_batch(tokens, 16, 6, step, seed=3)[0].flatten() for step in range(10)])
    assert len(seen) == len(seen.unique()) == 960  # 61 windows: ten batches of six


def test_batches_depend_on_seed_and_step_alone() -> None:
    tokens = torch.arange(1000)
    first = sample_batch(tokens, 8, 4, 12, seed=1)
    assert torch.equal(first[0], sample_batch(tokens, 8, 4, 12, seed=1)[0])
    assert not torch.equal(first[0], sample_batch(tokens, 8, 4, 13, seed=1)[0])
    assert not torch.equal(first[0], sample_batch(tokens, 8, 4, 12, seed=2)[0])
    assert torch.equal(first[1], first[0] + 1)


def test_the_last_token_can_be_a_target_and_nothing_is_behind_it() -> None:
    tokens = torch.arange(64)  # three windows of 16, 15 places to begin, and the last target
    batches = [sample_batch(tokens, 16, 3, step, 0) for step in range(60)]
    assert max(int(y.max()) for _, y in batches) == len(tokens) - 1
    assert min(int(x.min()) for x, _ in batches) == 0


def test_a_small_text_is_cut_into_windows_that_overlap() -> None:
    x, y = sample_batch(torch.arange(40), 16, 8, 0, seed=0)
    assert x.shape == (8, 16)
    assert torch.equal(y, x + 1)
    with pytest.raises(UsageError, match="has 16 tokens, too few for a window of 16"):
        sample_batch(torch.arange(16), 16, 1, 0, seed=0)


@pytest.mark.parametrize(("kind", "size"), [("char", 26 + 3), ("bpe", 275)])
def test_encoding_and_decoding_give_the_text_back(kind: str, size: int, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = build_tokenizer(kind, "pydoc", TEXT, 275)  # type: ignore[arg-type]
    assert len(tokenizer) == (len(set(TEXT)) + 3 if kind == "char" else size)
    tokens = encode(tokenizer, TEXT)
    assert tokenizer.decode(tokens.tolist()) == TEXT
    assert len(tokens) == len(TEXT) if kind == "char" else len(tokens) < len(TEXT)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.encode(TEXT, add_special_tokens=False) == tokens.tolist()
    assert (again.eos_token, again.pad_token, again.mask_token) == (END, PAD, MASK)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
    assert again.apply_chat_template(chat, tokenize=False) == f"user: Hi\nassistant: Yes{END}\n"


def test_bytes_encode_any_text_and_unknown_characters_become_the_end() -> None:
    strange = "日本語 🙂 \x00"
    byte_pairs = build_tokenizer("bpe", "pydoc", TEXT, 300)
    assert byte_pairs.decode(encode(byte_pairs, strange).tolist()) == strange
    characters = build_tokenizer("char", "pydoc", TEXT, 300)
    assert encode(characters, "日").tolist() == [characters.eos_token_id]


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_letters_of_a_special_token_stay_letters(kind: str) -> None:
    text = f"To end it {END} is not to end.\n{PAD}{MASK}\n" * 9
    tokenizer = build_tokenizer(kind, "pydoc", text, 300)  # type: ignore[arg-type]
    tokens = encode(tokenizer, text).tolist()
    assert not set(tokens) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.encode(END) == [tokenizer.eos_token_id]  # asked for by name, as before


def test_auto_goes_by_the_set_and_training_is_repeatable() -> None:
    assert len(build_tokenizer("auto", "tinyshakespeare", TEXT, 300)) == len(set(TEXT)) + 3
    one, two = (build_tokenizer("auto", "wikitext2", TEXT, 300) for _ in range(2))
    assert one.get_vocab() == two.get_vocab()
    assert 259 < len(one) <= 300


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(UsageError, match="has no text"):
        build_tokenizer("auto", "pydoc", "", 300)
    with pytest.raises(UsageError, match="type vocabulary=259"):
        build_tokenizer("bpe", "pydoc", TEXT, 100)


def test_a_run_that_goes_on_keeps_its_tokenizer(tmp_path: Path) -> None:
    data = TextData("pydoc", "embedded", TEXT, "", "")
    first = prepare_tokenizer(tmp_path, "char", data, 300)
    other = TextData("pydoc", "embedded", "quite another text", "", "")
    assert prepare_tokenizer(tmp_path, "char", other, 300).get_vocab() == first.get_vocab()
