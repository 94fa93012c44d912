"""The model that is tuned: week 7's, one from the hub or a folder, or a new random one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.chat import CHAT_TEMPLATE
from labkit import Run, UsageError, paths
from labkit.learning.weights import check_finite, check_loaded, opening
from labkit.text import short

LAB = "lab://"
BASE_DATA = ("wikitext2", "pydoc")
"""Training sets for week 7's model: the first, or the second if the first is not available."""
BASE_EXPERIMENT = "muon"
"""The recipe of week 7 that gives a GPT-2 the lowest loss for the same compute."""
HUB = "https://huggingface.co"
FILES = ["*.json", "*.txt", "*.safetensors"]
"""The files of a model and its tokenizer; the same weights in other formats are not downloaded."""
END = "<|endoftext|>"
OTHER_BASES = (
    "Type base=lab://pretraining/tiny for week 7's model, base=gpt2 with a network, or "
    "base=/path/to/a/folder"
)


def load_base(base: str, run: Run, texts: Iterable[str], dropout: float = 0.0) -> tuple[Any, Any]:
    """Model (fp32, on the run's device) and tokenizer (with the chat template) that `base` names.

    Args:
        base: `lab://pretraining/tiny`, a folder, or a name on the hub such as `gpt2`.
        texts: from these the tokenizer of a new random base is made: at size smoke, and in a probe.
    Raises:
        UsageError when there is no such base, or its tokenizer does not fit it.
    """
    place: Path | str | None = base
    if base.startswith(LAB):
        place = _artifact(base, run)
    model, tokenizer = _random(texts) if place is None else _pretrained(place, base)
    check_fit(model, tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # harmless: labels are masked by place, not value
    for config in (model.config, model.generation_config):
        config.pad_token_id, config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    set_dropout(model, dropout)
    return model.to(run.device), tokenizer


def _artifact(base: str, run: Run) -> Path | None:
    """The folder of `lab://<week>/tiny`; None where the run makes its own base."""
    week, _, size = base.removeprefix(LAB).partition("/")
    if size != "tiny" or not (paths.ROOT / week / "__init__.py").is_file():
        raise UsageError(
            f"base={base} is not a week's artifact; week 7's model is base=lab://pretraining/tiny"
        )
    return run.artifact(week, *BASE_DATA, BASE_EXPERIMENT)


def _pretrained(place: Path | str, base: str) -> tuple[Any, Any]:
    """From a folder or the hub, in fp32 whatever the files hold."""
    try:
        folder = Path(place) if Path(place).is_dir() else Path(_from_hub(str(place)))
    except (OSError, ValueError) as error:
        raise _nowhere(base, short(error, 200)) from error
    if not (folder / "config.json").is_file():
        raise _nowhere(base, "it has no config.json")
    return _open(folder)


def _nowhere(base: str, reason: str) -> UsageError:
    return UsageError(
        f"base={base} is neither a folder with a model and its tokenizer nor one that can be got "
        f"from the hub ({reason}).\n{OTHER_BASES}."
    )


def _open(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a folder. Raises UsageError if anything in it is wrong."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with opening(folder, "language model", OTHER_BASES):
        config = AutoConfig.from_pretrained(folder)
        if getattr(config, "activation_function", None) == "gelu_new":
            config.activation_function = "gelu_pytorch_tanh"  # the same function in one kernel
        opened: Any = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    model, info = opened
    check_loaded(info, folder)
    check_finite(model, folder)
    with opening(folder, "tokenizer", "It must lie beside the model"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.encode("words"):  # without its files the library makes an empty one
            raise UsageError(f"{folder} has no tokenizer; it must lie beside the model")
    return model, tokenizer


def _from_hub(name: str) -> str:
    """The folder of a model, downloaded now unless it was before. Raises OSError."""
    from huggingface_hub import snapshot_download

    from labkit.data.fetch import reachable

    local = not reachable(HUB)
    return snapshot_download(name, allow_patterns=FILES, local_files_only=local)


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of at most `vocabulary` tokens made from `texts`; it encodes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


def _random(texts: Iterable[str]) -> tuple[Any, Any]:
    """A GPT-2 of random weights with a tokenizer made from `texts`; takes a second.

    The weights are larger than GPT-2's own initial ones: LoRA can only combine the features of the
    frozen layers, and with an initial standard deviation of 0.02 these are almost zero.
    """
    from torch import nn
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = make_tokenizer(texts, 512)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=64, n_layer=2, n_head=4,
        bos_token_id=end, eos_token_id=end, initializer_range=0.125,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    nn.init.normal_(model.transformer.wte.weight, std=0.25)  # 2/√64: logits of size 2
    return model, tokenizer


def check_fit(model: Any, tokenizer: Any) -> None:
    """Raises UsageError when the tokenizer has ids that the model does not embed, or no EOS."""
    if tokenizer.eos_token_id is None:
        raise UsageError("the base's tokenizer has no end-of-text token: answers could never end")
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UsageError(
            f"the tokenizer does not fit the model: it writes ids up to {largest}, and the model "
            f"embeds 0 to {rows - 1}. Take both from one folder."
        )


def set_dropout(model: Any, dropout: float) -> None:
    """Give all dropout layers of a model one probability."""
    from torch import nn

    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = dropout
        elif hasattr(layer, "attn_dropout") and isinstance(layer.attn_dropout, float):
            layer.attn_dropout = dropout


def check_context(model: Any, context: int) -> int:
    """`context`, or the model's number of positions if that is smaller, with a message."""
    from labkit.show.console import say

    most = int(model.config.max_position_embeddings)
    if context > most:
        say(f"context={context} is more than the base's {most} positions: rows have {most} tokens")
    return min(context, most)
