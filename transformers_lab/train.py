"""Translate: the Transformer of Vaswani et al. 2017 on Multi30k, or on dates and numbers.

    python -m transformers_lab.train +size=tiny                 German to English
    python -m transformers_lab.train +size=tiny data=dates      Monday, March 3, 1987 -> 1987-03-03
    python -m transformers_lab.train +size=tiny data=numbers    1042 -> one thousand forty-two

Training uses teacher forcing on whole sentences; the test generates translations with beam search
and scores them with sacreBLEU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass
class Config(LabConfig):
    """Week 6: the Transformer, from one language to another."""

    data: str = "multi30k"
    """multi30k (German to English), or dates or numbers, which are generated."""
    vocabulary: Annotated[int, Bounds(least=200)] = 8000
    """Maximal size of the shared vocabulary, characters included; learning ends earlier when no
    pair occurs twice."""
    tokenizer: Literal["hand", "library"] = "hand"
    """Implementation of byte-pair encoding: bpe.py, or the library (same result, faster)."""
    d_model: PositiveInt = 256
    """Width of the model."""
    heads: PositiveInt = 8
    """Attention heads of a layer."""
    layers: PositiveInt = 4
    """Layers of the encoder, and of the decoder."""
    d_ff: PositiveInt = 1024
    """Width of the hidden layer of each feed-forward network."""
    dropout: Share = 0.3
    """Dropout probability of each sublayer's output and of the embeddings."""
    norm: Literal["pre", "post"] = "pre"
    """LayerNorm before each sublayer, or after each residual sum as in the paper."""
    backend: Literal["naive", "sdpa"] = "sdpa"
    """Implementation of attention: the equation as written, or PyTorch's kernels."""
    smoothing: Share = 0.1
    """Label smoothing, ε."""
    epochs: PositiveFloat = 40.0
    """Passes over the training pairs of Multi30k."""
    epochs_embedded: PositiveFloat = 10.0
    """Passes over an embedded set (dates, numbers), which needs fewer."""
    batch_tokens: PositiveInt = 8192
    """Tokens of a batch, source and target together, padding included."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """AdamW for all weights, or Muon for the matrices inside the layers and AdamW for the rest."""
    schedule: Literal["one_cycle", "paper"] = "one_cycle"
    """Learning rate: up and down in cosines, or the paper's equation 3 (`schedule.noam`; AdamW)."""
    lr: PositiveFloat = 2e-3
    """AdamW's peak in one_cycle; the paper's schedule peaks at (d_model · warm-up)^-0.5."""
    lr_muon: PositiveFloat = 0.02
    """Muon's peak."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay."""
    beams: Annotated[int, Bounds(least=1, most=64)] = 4
    """Hypotheses that beam search keeps, at most 64; 1 is greedy."""
    length_penalty: NonNegativeFloat = 0.6
    """α of the length penalty; 0 ranks by probability alone."""
    tests: PositiveInt | None = None
    """How many test pairs are translated and scored, from the first; null is all."""
    evaluations: PositiveInt = 10
    """Evaluations on the validation pairs during training, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_model % self.heads or self.d_model % 2:
            raise UsageError(
                f"d_model must be even and a multiple of heads; got d_model={self.d_model} and "
                f"heads={self.heads}, try d_model={16 * self.heads}"
            )
        if self.schedule == "paper" and self.optimizer != "adamw":
            raise UsageError("schedule=paper is AdamW's: add optimizer=adamw")


@lab("transformers_lab", Config)
def train(cfg: Config, run: Run) -> None:
    """A batch of pairs, the loss on their targets, a step."""
    from labkit.data import ParallelData
    from labkit.learning.modes import evaluating
    from pytorch_mastery import one_cycle
    from transformers_lab.batches import Batches, Corpus, shift
    from transformers_lab.bpe import PAD, count_words, learn, learn_with_library
    from transformers_lab.evaluate import forced, report
    from transformers_lab.loss import smoothed_cross_entropy
    from transformers_lab.model import Shape, Transformer
    from transformers_lab.optimizers import build
    from transformers_lab.schedule import noam

    data = run.data(cfg.data, ParallelData)
    counts = count_words(sentence for pair in data.train for sentence in pair)
    bpe = (learn if cfg.tokenizer == "hand" else learn_with_library)(counts, cfg.vocabulary)
    pairs = {"train": data.train, "valid": data.valid, "test": data.test[: cfg.tests]}
    splits = {name: Corpus(those, bpe, run.device) for name, those in pairs.items()}
    batches = Batches(splits["train"], cfg.batch_tokens, cfg.seed)

    shape = Shape(
        cfg.d_model, cfg.heads, cfg.layers, cfg.d_ff, cfg.dropout, cfg.norm == "pre", cfg.backend
    )
    model = Transformer(len(bpe), shape).to(run.device)
    optimizers = build(model, cfg.optimizer, cfg.lr, cfg.lr_muon, cfg.weight_decay, run.precision)
    run.track(model=model, **optimizers)

    passes = cfg.epochs_embedded if data.source == "embedded" else cfg.epochs
    steps = max(2, round(passes * len(batches)))
    rise = max(cfg.warmup, 2 / steps)
    every = max(1, steps // cfg.evaluations)
    for step in run.steps(steps):
        source, target = batches[step]
        inputs, labels = shift(target)
        counted = labels != PAD
        share = one_cycle(step, steps, 1.0, rise)
        rates = {"adamw": share * cfg.lr, "muon": share * cfg.lr_muon}
        if cfg.schedule == "paper":
            rates["adamw"] = noam(step, cfg.d_model, round(rise * steps))
        for name, optimizer in optimizers.items():
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rates[name]
        with run.autocast():
            x = model.decode(inputs, model.encode(source))
            logits = model.logits(x[counted])  # only where there is something to learn
        loss = smoothed_cross_entropy(logits.float(), labels[counted], cfg.smoothing)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
        if step % cfg.log_every == 0 or step == steps - 1:
            muon = {"train/lr_muon": rates["muon"]} if "muon" in optimizers else {}
            run.log({"train/loss": loss, "train/lr": rates["adamw"], **muon}, step)
        if step % every == 0 or step == steps - 1:
            with evaluating(model):
                valid = forced(model, splits["valid"])
            run.log({"valid/nll": valid.nll, "valid/perplexity": valid.perplexity}, step)
    run.save()
    run.result(report(run, model, bpe, data, splits, cfg.beams, cfg.length_penalty))


if __name__ == "__main__":
    train()
