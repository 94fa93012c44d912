"""What a method begins with: a model that speaks the language, and for PPO a reward model.

    base     random, week 7's, GPT-2, ...        `base_of`
    start    the base after a supervised start on *both* answers of each pair: it writes good and
             bad ones alike. It is what all methods begin with, and their frozen reference.
    reward   the start with a head for one number, trained on the pairs

Start and reward model are runs of this week too (experiment=start, experiment=reward). Others take
what these have published, and keep a copy in their folder, which a resumed run reads.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignment import load_base
from labkit import Run, UsageError
from labkit.data import PreferenceData, batch_indices
from labkit.learning.muon import Muon, others
from labkit.show.console import say
from pretraining import GPT, Shape, export, from_huggingface, load
from pytorch_mastery import one_cycle
from rlhf.preferences import Pair, Rows, in_batches, table, token_logps
from rlhf.reward_model import RewardModel, bradley_terry_loss
from rlhf.settings import MethodSettings, RewardSettings, SFTSettings

END, PAD = "<|endoftext|>", "<|pad|>"
GENERATED = "replies"
"""The set whose language a small random model learns in a minute; it has its own vocabulary."""
AT_HAND = 200
"""Steps, at most, of what a run trains on the spot: at size smoke, or when it is only watched."""


def word_tokenizer(texts: Sequence[str]) -> Any:
    """One token for each word of `texts`, in alphabetical order; other words become END."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [END, PAD, *sorted({word for text in texts for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, END))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)  # joins by spaces
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token=END, pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def base_of(
    name: str, run: Run, data: PreferenceData, context: int | None, shape: tuple[int, int, int]
) -> tuple[GPT, Any]:
    """The model that `base=` names, and its tokenizer.

    Args:
        name: new, lab://pretraining/tiny, a folder, a name on the hub, or auto: new for the
            generated language and week 7's for others.
        shape: width, layers and heads of a new one.
    Raises:
        UsageError for a base that cannot be had, or that is not a GPT-2 as week 7 knows it.
    """
    if name == "auto":
        name = "new" if data.name == GENERATED else "lab://pretraining/tiny"
    texts = [text for row in data.train for text in (row.prompt, row.chosen, row.rejected)]
    if name == "new":
        tokenizer = word_tokenizer(texts)
        return GPT(Shape(len(tokenizer), context or 32, *shape)).to(run.device), tokenizer
    theirs, tokenizer = load_base(name, run, texts)
    try:
        return from_huggingface(theirs).to(run.device), tokenizer
    except ValueError as error:
        raise UsageError(f"base={name}: {error}; type base=gpt2") from error


BETAS = (0.9, 0.99)


def optimizers_of(
    model: nn.Module, settings: MethodSettings, weight_decay: float = 0.0
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the matrices inside the layers where the settings have a `muon_lr`.

    Muon (week 7) finds out what belongs together in a fraction of AdamW's steps: which items are
    birds, and which kind was asked for.
    """
    muon_lr = getattr(settings, "muon_lr", 0.0)
    names: dict[str, Any] = {"weight_decay": weight_decay}
    if not muon_lr:
        return [torch.optim.AdamW(model.parameters(), settings.lr, BETAS, fused=True, **names)]
    matrices = [p for name, p in model.named_parameters() if "blocks." in name and p.dim() == 2]
    rest = others(model, matrices)
    return [
        torch.optim.AdamW(rest, settings.lr, BETAS, fused=True, **names),
        Muon(matrices, muon_lr, adjust_lr_fn="match_rms_adamw", precision="fp32", **names),
    ]


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Set each learning rate to `factor` times the one that the optimiser was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * optimizer.defaults["lr"]


def quick(
    model: nn.Module, loss_of: Callable[[int], Tensor], settings: SFTSettings | RewardSettings
) -> None:
    """Train `model` here and now, AT_HAND steps at most: `loss_of` is the loss of a step."""
    optimizers, steps = optimizers_of(model, settings), min(settings.steps, AT_HAND)
    model.train()
    for step in range(steps):
        set_rates(optimizers, one_cycle(step, steps, 1.0, 0.1))
        model.zero_grad()
        loss_of(step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()


def keep(run: Run, folder: Path, save: Callable[[Path], None]) -> None:
    """Let `save` fill `folder` in the run's own, unless it is there; it appears whole or not at
    all, so that a run that was cut short can be resumed.
    """
    if not run.writes or folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    save(partial)
    partial.rename(folder)


def answer_nll(model: GPT, rows: Rows) -> Tensor:
    """Mean negative log-likelihood of a token of the answers of rows (P, 2, T): a scalar."""
    flat = Rows(*(part.flatten(0, -2) for part in rows)).trimmed()
    return -token_logps(model, flat).sum() / flat.mask.sum()


def start_of(
    run: Run,
    data: PreferenceData,
    base: Callable[[], tuple[GPT, Any]],
    encoded: Callable[[Any, GPT], Sequence[Pair]],
    settings: SFTSettings,
    batch: int,
) -> tuple[GPT, Any]:
    """The model after its supervised start, and its tokenizer.

    Args:
        base, encoded: the base; and the training pairs in a tokenizer's tokens. Both are called
            only where the start is made on the spot.
    """
    from transformers import PreTrainedTokenizerFast

    kept = run.dir / "start"
    found = kept if kept.is_dir() else run.artifact("rlhf", data.name, None, "start", run.size)
    if found is not None:
        model = load(found).to(run.device)
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(found)
    else:
        model, tokenizer = base()
        rows = table(encoded(tokenizer, model), run.device)
        say("no start is at hand: a short one is made")

        def loss_of(step: int) -> Tensor:
            index = torch.tensor(batch_indices(len(rows.mask), batch, step, run.seed))
            return answer_nll(model, Rows(*(part[index.to(run.device)] for part in rows)))

        quick(model, loss_of, settings)
    keep(run, kept, lambda folder: export(model, tokenizer, folder))
    return model.eval(), tokenizer


def save_reward(model: RewardModel, tokenizer: Any, folder: Path) -> None:
    """The trunk as a Hugging Face model, and the rest beside it."""
    export(model.trunk, tokenizer, folder)
    rest = {k: v for k, v in model.state_dict().items() if not k.startswith("trunk.")}
    save_file(rest, folder / "reward.safetensors")


def load_reward(folder: Path) -> RewardModel:
    """What `save_reward` wrote. Raises UsageError when it is not there."""
    if not (folder / "reward.safetensors").is_file():
        raise UsageError(f"{folder} holds no reward model; make one: +experiment=reward")
    model = RewardModel(load(folder))
    model.load_state_dict(load_file(folder / "reward.safetensors"), strict=False)
    return model


def reward_of(
    run: Run, data: PreferenceData, start: GPT, tokenizer: Any, pairs: Sequence[Pair],
    settings: RewardSettings, batch: int,
) -> RewardModel:  # fmt: skip
    """The reward model that experiment=reward published, or one made on the spot."""
    kept = run.dir / "reward"
    found = kept if kept.is_dir() else run.artifact("rlhf", data.name, None, "reward", run.size)
    if found is not None:
        model = load_reward(found).to(run.device)
    else:
        model, rows = RewardModel(start), table(pairs, run.device)
        say("no reward model is at hand: one is trained for some steps")

        def loss_of(step: int) -> Tensor:
            size = min(batch, len(rows.mask))
            index = torch.tensor(batch_indices(len(rows.mask), size, step, run.seed))
            part = Rows(*(part[index.to(run.device)] for part in rows)).trimmed()
            return bradley_terry_loss(*model(part).unbind(1))

        quick(model, loss_of, settings)
        model.standardise(in_batches(model, model, rows, 256))
    keep(run, kept, lambda folder: save_reward(model, tokenizer, folder))
    return model.eval()
