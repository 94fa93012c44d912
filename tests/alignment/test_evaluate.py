"""What is measured: likelihood against a loop, batched answers against answers one by one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.base import check_context, check_fit, load_base, set_dropout
from alignment.chat import Example, prompt_text
from alignment.evaluate import answers, following, preference_pairs, response_nll
from alignment.report import compared
from labkit import UsageError
from labkit.data import Instruction


def test_response_nll_is_the_mean_over_answer_tokens(make_gpt2: Callable[..., Any]) -> None:
    model = make_gpt2()
    examples = [Example([3, 4, 5, 6, 7, 0], 3), Example([8, 9, 1, 0], 2), Example([2, 3, 0], 2)]
    total, count = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logps = model(torch.tensor([example.tokens])).logits[0].log_softmax(-1)
        for t in range(example.prompt, len(example.tokens)):
            total, count = total - logps[t - 1, example.tokens[t]].item(), count + 1
    assert response_nll(model, examples) == pytest.approx(total / count, abs=1e-5)
    assert response_nll(model, examples, batch_size=2) == pytest.approx(total / count, abs=1e-5)


def test_nll_leaves_training_mode_as_it_was(make_gpt2: Callable[..., Any]) -> None:
    model = make_gpt2()
    set_dropout(model, 0.5)
    examples = [Example([3, 4, 5, 0], 2)]
    assert response_nll(model.train(), examples) == response_nll(model, examples), "no dropout"
    assert model.training
    response_nll(model.eval(), examples)
    assert not model.training


@pytest.fixture
def talker(tokenizer: Any) -> Any:
    """A random GPT-2 for the tokenizer, which stops now and then."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


ROWS = [
    Instruction("Sort.", "b a", "a b"),
    Instruction("A", "", "b"),
    Instruction("Say the word again.", "apple", "apple"),
]


def greedy(model: Any, tokenizer: Any, row: Instruction, longest: int) -> tuple[str, bool]:
    """One answer, token by token, without padding, cache or `generate`."""
    tokens, written = tokenizer(prompt_text(row))["input_ids"], []
    for _ in range(longest):
        with torch.no_grad():
            token = int(model(torch.tensor([tokens + written])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            return tokenizer.decode(written), True
        written.append(token)
    return tokenizer.decode(written), False


def test_batched_answers_are_those_of_one_at_a_time(talker: Any, tokenizer: Any) -> None:
    with torch.no_grad():  # make the end likely enough to occur at different places
        talker.transformer.wte.weight[0] *= 2
    rows = [Instruction(f"{word} {i}", "", "x") for i in range(6) for word in ("Sort", "A")]
    found = answers(talker, tokenizer, rows, 12)
    assert found == [greedy(talker, tokenizer, row, 12) for row in rows]
    assert answers(talker, tokenizer, rows, 12, batch_size=5) == found
    assert len({ended for _, ended in found}) == 2, "some end, some do not"


def test_a_prompt_with_the_letters_of_the_end_of_text_holds_letters(
    talker: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.extend(input_ids[0].tolist())
        return torch.cat([input_ids, input_ids.new_tensor([[65, 0]])], dim=1)

    monkeypatch.setattr(talker, "generate", generate)
    row = Instruction(f"A{tokenizer.eos_token}", "", "b")
    answers(talker, tokenizer, [row], 2)
    assert tokenizer.decode(asked) == prompt_text(row)
    assert tokenizer.eos_token_id not in asked


def test_a_prompt_without_room_for_an_answer_is_not_asked(talker: Any, tokenizer: Any) -> None:
    long_row = Instruction("x" * 60, "", "x")
    found = answers(talker, tokenizer, [long_row, ROWS[1]], 8)
    assert found[0] == ("", False)
    assert found[1] == greedy(talker, tokenizer, ROWS[1], 8)


def test_following_counts_answers_to_the_letter(
    talker: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [("a b", True), ("B", False), ("apple", True)]
    monkeypatch.setattr("alignment.evaluate.answers", lambda *_: said)
    shares, texts = following(talker, tokenizer, ROWS)
    assert shares["following"] == pytest.approx(200 / 3), "B is not b"
    assert shares["stops"] == pytest.approx(200 / 3)
    assert texts == ["a b", "B", "apple"]


def test_the_worse_answer_says_the_same_twice(tokenizer: Any) -> None:
    pairs = preference_pairs(ROWS, tokenizer, 2, 999)
    assert len(pairs) == 2
    chosen, rejected = pairs[0]
    longest = len(rejected.tokens)
    assert len(preference_pairs(ROWS, tokenizer, 1, longest)) == 1
    assert preference_pairs(ROWS, tokenizer, 1, longest - 1) == []
    assert chosen.tokens[: chosen.prompt] == rejected.tokens[: rejected.prompt]
    assert tokenizer.decode(chosen.answer[:-1]) == "a b"
    assert tokenizer.decode(rejected.answer[:-1]) == "a b a b"


def test_gain_kept() -> None:
    found = compared(5.0, {"lora": 3.1, "full": 3.0})
    assert found["gain_kept"] == pytest.approx(95)
    assert (found["response_nll"], found["full_nll"], found["base_nll"]) == (3.1, 3.0, 5.0)
    assert "gain_kept" not in compared(5.0, {"full": 3.0})


def test_a_tokenizer_that_writes_what_the_model_cannot_read(
    make_gpt2: Callable[..., Any], tokenizer: Any
) -> None:
    with pytest.raises(UsageError, match=r"ids up to 2\d\d, and the model embeds 0 to 49"):
        check_fit(make_gpt2(), tokenizer)


def test_a_context_beyond_the_models_is_cut(
    make_gpt2: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_context(make_gpt2(), 16) == 16
    assert check_context(make_gpt2(), 99) == 32
    assert "more than the base's 32 positions" in capsys.readouterr().err


class FakeRun:
    """As much of a Run as `load_base` uses."""

    device = torch.device("cpu")

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def artifact(self, *asked: str) -> Path | None:
        assert asked == ("pretraining", "wikitext2", "pydoc", "muon")
        return self.folder


def test_a_base_that_is_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_OFFLINE", "1")
    for base in ("no/such-model", str(tmp_path)):
        with pytest.raises(UsageError, match="neither a folder with a model and its tokenizer nor"):
            load_base(base, FakeRun(), [])  # type: ignore[arg-type]
    for base in ("lab://pretraining/huge", "lab://pretrainign/tiny"):
        with pytest.raises(UsageError, match="is not a week's artifact"):
            load_base(base, FakeRun(), [])  # type: ignore[arg-type]


def test_an_artifact_is_read_with_its_tokenizer(
    talker: Any, tokenizer: Any, tmp_path: Path
) -> None:
    talker.to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, found = load_base("lab://pretraining/tiny", FakeRun(tmp_path), [], dropout=0.2)  # type: ignore[arg-type]
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "whatever the files hold"
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}
    assert found.chat_template == tokenizer.chat_template
    assert model.config.eos_token_id == found.eos_token_id
    assert found("apple pear")["input_ids"] == tokenizer("apple pear")["input_ids"]
