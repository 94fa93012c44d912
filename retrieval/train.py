"""Train a dual encoder and a reader on questions, and measure search and answers.

python -m retrieval.train +size=tiny                     the encoder learns from known passages
python -m retrieval.train +size=tiny +experiment=atlas   from the reader's likelihood alone
python -m retrieval.train +size=tiny dense=minilm        a published encoder; the reader is trained
python -m retrieval.chat                                 ask the run that finished last
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import PositiveInt
from retrieval.settings import EncoderSettings, ReaderSettings, SearchSettings


@dataclass
class Config(LabConfig):
    """Week 19: search by words and by meaning, and answers with citations."""

    data: str = "squad"
    """Corpus with questions: a question set of the registry."""
    method: Literal["contrastive", "distill"] = "contrastive"
    """What the dual encoder learns from: the passage that is known to be right against others, or
    how likely the reader finds the answer in each passage (perplexity distillation of Atlas)."""
    dense: str = "ours"
    """The dual encoder: ours, minilm, or a sentence encoder by its folder or name on the hub, which
    is not trained further."""
    steps: PositiveInt = 20_000
    """Steps; each trains the encoder on a batch, and the reader on another."""
    evaluations: PositiveInt = 5
    """Looks at the encoder's nDCG@10 on validation questions, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """The dual encoder."""
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    """The cross-encoder."""
    search: SearchSettings = field(default_factory=SearchSettings)
    """What is done with a question."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder.width % self.encoder.heads or self.encoder.width % 2:
            raise UsageError(
                f"encoder.width={self.encoder.width} must be even and a multiple of "
                f"encoder.heads={self.encoder.heads}; try encoder.heads=2"
            )
        if self.search.rerank > self.search.depth or self.search.read > self.search.rerank:
            raise UsageError(
                "each step takes some of the passages of the one before: search.read="
                f"{self.search.read} <= search.rerank={self.search.rerank} <= "
                f"search.depth={self.search.depth} does not hold"
            )
        if self.method == "distill" and self.dense != "ours":
            raise UsageError(f"dense={self.dense} is not trained; type method=contrastive")


@lab("retrieval", Config)
def train(cfg: Config, run: Run) -> None:
    """Train both models, choose on validation questions, measure on test questions."""
    import torch

    from labkit.data import QuestionData, check_batch_size
    from pytorch_mastery import one_cycle
    from retrieval.batches import Batches
    from retrieval.embed import Embedder, Own, published
    from retrieval.encoder import Encoder
    from retrieval.evaluate import quick_ndcg
    from retrieval.objectives import contrastive, distilled
    from retrieval.pipeline import Choices, Pipeline
    from retrieval.rag import Reader
    from retrieval.reader import CrossEncoder, reading_loss
    from retrieval.report import report

    data = run.data(cfg.data, QuestionData)
    check_batch_size(len(data.train), cfg.encoder.batch_size, "encoder.batch_size")
    check_batch_size(len(data.train), cfg.reader.batch_size, "reader.batch_size")
    batches = Batches(data, cfg.encoder, cfg.reader, cfg.seed, run.device)
    e, r = cfg.encoder, cfg.reader
    encoder = Encoder(batches.idf, e.width, e.layers, e.heads, e.dropout).to(run.device)
    idf = torch.tensor(batches.vocabulary.idf)
    reader = CrossEncoder(idf, r.embedding, r.width, r.blocks, r.dropout).to(run.device)
    ours = cfg.dense == "ours"
    embedder: Embedder
    embedder = Own(encoder) if ours else published(cfg.dense, run.device)
    groups: list[dict[str, Any]] = [{"params": reader.parameters(), "peak": r.lr}]
    groups += [{"params": encoder.parameters(), "peak": e.lr}] if ours else []
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    untrained = quick_ndcg(embedder, data)  # before a resumed run takes its weights back
    run.track(encoder=encoder, reader=reader, optimizer=optimizer)

    every = max(1, cfg.steps // cfg.evaluations)
    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=0.1)  # as a share of the peak
        for group in optimizer.param_groups:
            group["lr"] = rate * group["peak"]
        retriever = torch.zeros((), device=run.device)
        if ours and cfg.method == "contrastive":
            retriever = contrastive(encoder, batches, step, run.autocast)
        elif ours:
            retriever = distilled(encoder, reader, batches, step, run.autocast)
        q, p, spans = batches.reading(step)
        with run.autocast():
            relevance, begin, end = reader(q, p)
        each = 1 + r.negatives  # the first passage of each question has the answer
        relevance = relevance.view(-1, each)
        choice, places = reading_loss(relevance, begin[::each], end[::each], spans)
        optimizer.zero_grad()
        (retriever + choice + places).backward()
        optimizer.step()
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            losses = {"train/retriever": retriever, "train/reader": places, "train/choice": choice}
            run.log({**losses, "train/lr": rate * r.lr}, step)
        if ours and (step % every == every - 1 or step == cfg.steps - 1):
            run.log({"valid/ndcg_dense": quick_ndcg(embedder, data)}, step)
    run.save()

    if ours:
        embedder = Own(encoder)  # with the fingerprint of the trained weights
    choices = Choices(depth=cfg.search.depth, rerank=cfg.search.rerank, read=cfg.search.read)
    answerer = Reader(reader, batches.vocabulary, r.longest)
    pipeline = Pipeline(embedder, answerer, choices, cfg.dense)
    metrics = report(run, pipeline, data, cfg.search)
    pipeline.save(run.dir / "model")
    run.publish(pipeline.save)
    run.result({**metrics, "valid_ndcg_untrained": untrained})


if __name__ == "__main__":
    train()
