"""How good the translations are, and three numbers that check the parts.

    bleu            for languages: sacreBLEU of the beam's sentences as plain text (Post 2018)
    exact_match     for dates and numbers, which have one right answer: share of exact matches
    perplexity      exp of the mean nats per token of the references, BPE tokens and their end

BLEU is computed by the library on plain text, cased, with its own tokenisation. BLEU over the
model's own or over lower-cased tokens, as many tutorials report it, is another, higher number.

    teacher_gap     share of sentences entirely right under teacher forcing, minus those right when
                    generated greedily; both make the same first error, so it must be 0
    source_gain     nats per token lost when each target is given its neighbour's source: above 0
    length_ratio    generated tokens over tokens of the references: near 1
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labkit import Run
from labkit.data import ParallelData
from transformers_lab.batches import Corpus, shift
from transformers_lab.bpe import BOS, BPE, EOS, PAD
from transformers_lab.decode import beam_search, greedy
from transformers_lab.figures import alignment_figure
from transformers_lab.loss import nll
from transformers_lab.model import Transformer

ROWS = 100
"""Sentences in a batch of the evaluation."""
SHOWN = 40
"""Translations in samples/translations.txt."""


@dataclass(frozen=True)
class Forced:
    """A split under teacher forcing: how well the model predicts the references."""

    nats: float
    tokens: int
    right: float
    """Share of sentences of which every token is the likeliest."""

    @property
    def nll(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The effective number of tokens that the model chooses from."""
        return math.exp(self.nll)


@torch.no_grad()
def forced(model: Transformer, corpus: Corpus, exchanged: bool = False) -> Forced:
    """Measure a split; `exchanged` gives each sentence the source of its neighbour in length."""
    nats, tokens, right = 0.0, 0, 0
    for rows in chunks(corpus):
        source, target = corpus.rows(rows)
        if exchanged:
            source = source.roll(1, dims=0)
        inputs, labels = shift(target)
        logits = model(source, inputs).float()
        nats += float(nll(logits, labels).sum())
        tokens += int((labels != PAD).sum())
        right += int(((logits.argmax(dim=-1) == labels) | (labels == PAD)).all(dim=1).sum())
    return Forced(nats, tokens, right / len(corpus))


def chunks(corpus: Corpus) -> list[np.ndarray]:
    """Indices of a split in groups of similar length."""
    return np.array_split(corpus.sorted, -(-len(corpus) // ROWS))


def translate(
    model: Transformer, corpus: Corpus, beams: int = 1, alpha: float = 0.0
) -> list[list[int]]:
    """Tokens generated for each source of a split, in order, without EOS; one beam is greedy."""
    written: list[list[int]] = [[] for _ in range(len(corpus))]
    for rows in chunks(corpus):
        source, _ = corpus.rows(rows)
        tokens = greedy(model, source) if beams == 1 else beam_search(model, source, beams, alpha)
        for row, ids in zip(rows, tokens.tolist(), strict=True):
            written[row] = ids[: ids.index(EOS)] if EOS in ids else ids
    return written


def references(corpus: Corpus) -> list[list[int]]:
    """Tokens of every target, without BOS and EOS."""
    return [
        row[1:length]
        for row, (_, length) in zip(corpus.target.tolist(), corpus.lengths, strict=True)
    ]


def bleu(hypotheses: list[str], sentences: list[str]) -> float:
    """sacreBLEU of a whole split, 0 to 100 (cased, tokenised as `13a`, exponential smoothing).

    Raises ValueError unless there is one sentence for each hypothesis: the library would silently
    drop extra ones on either side.
    """
    import sacrebleu

    if len(hypotheses) != len(sentences) or not sentences:
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(sentences)} reference sentences")
    return float(sacrebleu.corpus_bleu(hypotheses, [sentences]).score)


def report(
    run: Run,
    model: Transformer,
    bpe: BPE,
    data: ParallelData,
    splits: dict[str, Corpus],
    beams: int,
    alpha: float,
) -> dict[str, float]:
    """The metrics of the test split; writes pictures and sample translations into samples/."""
    model.eval()
    test, truth = splits["test"], references(splits["test"])
    short, best = translate(model, test), translate(model, test, beams, alpha)
    sentences = [target for _, target in data.test[: len(test)]]
    hypotheses = [bpe.decode(ids) for ids in best]
    told, exchanged = forced(model, test), forced(model, test, exchanged=True)
    if data.source == "embedded":
        same = [a == b for a, b in zip(hypotheses, sentences, strict=True)]
        metrics = {"exact_match": 100 * sum(same) / len(test)}
    else:
        plain = [bpe.decode(ids) for ids in short]
        metrics = {"bleu": bleu(hypotheses, sentences), "greedy_bleu": bleu(plain, sentences)}
    written_right = sum(a == b for a, b in zip(short, truth, strict=True)) / len(test)
    run.plot("loss", "train/loss", "valid/nll")
    run.plot("learning_rate", "train/lr")
    run.figure("alignment", alignment_figure(*_some_maps(model, test, bpe)))
    if run.is_main:
        _write_samples(run, data, hypotheses)
    return metrics | {
        "test_perplexity": told.perplexity,
        "val_perplexity": forced(model, splits["valid"]).perplexity,
        "teacher_gap": 100 * (told.right - written_right),
        "source_gain": exchanged.nll - told.nll,
        "length_ratio": sum(map(len, short)) / sum(map(len, truth)),
    }


def _some_maps(
    model: Transformer, corpus: Corpus, bpe: BPE, count: int = 3
) -> tuple[list[Tensor], list[list[str]], list[list[str]]]:
    """Cross-attention (layers, T, S), mean over the heads, and the tokens on both sides."""
    maps, sources, targets = [], [], []
    for i in range(min(count, len(corpus))):
        source, _ = corpus.rows(np.array([i]))
        written = greedy(model, source)
        reads = torch.cat([torch.full_like(written[:, :1], BOS), written[:, :-1]], dim=1)
        with torch.no_grad():
            maps.append(model.maps(source, reads)[:, 0].mean(dim=1))
        sources.append([bpe.tokens[t] for t in source[0].tolist()])
        targets.append([bpe.tokens[t] for t in written[0].tolist()])
    return maps, sources, targets


def _write_samples(run: Run, data: ParallelData, hypotheses: list[str]) -> None:
    """samples/translations.txt: source, reference and translation of the first sentences."""
    names, count = (*data.languages, "model"), min(SHOWN, len(hypotheses))
    blocks = [
        "".join(f"{n:>10}  {text}\n" for n, text in zip(names, (*pair, hypothesis), strict=True))
        for pair, hypothesis in zip(data.test[:count], hypotheses[:count], strict=True)
    ]
    folder = run.dir / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "translations.txt").write_text("\n".join(blocks), encoding="utf-8")
