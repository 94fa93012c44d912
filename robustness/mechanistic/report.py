"""What a run leaves behind: metrics on test data, and pictures.

induction
    induction_score       prefix-matching score of the best head, the mean over three periods
    previous_token_score  attention to the position before, of the best head of the first layer
    repeat_loss           loss where the next token is certain (nats), in rows of the longest period
    in_context            loss where it is new, minus repeat_loss
    copying               copying score of the best induction head
    composition           K-composition of the previous-token head with the induction head, over
                          the mean of the other pairs
    restored              share of the answer restored by the previous-token head alone, patched
                          where the note about the answer stands

superposition
    phase_agreement       cells of the phase diagram that are in the phase of lowest exact loss (%)
    commonest_phase       cells that theory puts in its commonest phase (%): what guessing reaches
    loss_excess           the trained models' exact loss above the lowest of the three that theory
                          knows, mean over the cells (%); below 0 where training found a better one
    sparsest_share        mean dimensionality of the features at the lowest density

sae
    explained_variance, l0 (latents above 0 of an example), dead_share (latents silent over the
    whole test, %), decoder_norm (mean norm of the directions); with a toy model mean_max_cosine
    and random_cosine, that of the dictionary before training; with a language model loss_recovered:
    1 when the model goes on from the reconstructions as well as from its own stream, 0 when no
    better than from the mean
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import Run
from labkit.learning.modes import evaluating
from robustness.mechanistic import figures, induction, lens, patching, sae, superposition
from robustness.mechanistic.hooks import Hook, run_with_hooks
from robustness.mechanistic.jobs import Induction, Job, Sparse, Superposition
from robustness.mechanistic.patterns import TEST
from robustness.mechanistic.sources import TextSource

PATCHED = 64
"""Rows of the patching experiment."""
AT_ONCE = 32
"""Windows of text whose logits are in memory together."""


def report(job: Job, run: Run) -> dict[str, float]:
    """The metrics of whichever job it is; draws its pictures."""
    if isinstance(job, Induction):
        return report_induction(job, run)
    if isinstance(job, Superposition):
        return report_superposition(job, run)
    assert isinstance(job, Sparse)
    return report_sparse(job, run)


def report_induction(job: Induction, run: Run) -> dict[str, float]:
    """Measures the model, the head that looks for repeats and the one that it rests on."""
    model, rows = job.model, job.rows(job.settings.tests, TEST, run.seed)
    tokens, period = rows[-1]
    with evaluating(model):
        losses = induction.next_token_losses(model(tokens), tokens)
        first, repeat = (float(x) for x in induction.first_and_repeat(losses, period))
        patterns = induction.patterns_of(model, tokens)
        scores = induction.scores_of(model, rows)
        previous = induction.previous_token_score(patterns[0])
        layer, head = divmod(int(scores.argmax()), scores.shape[1])
        note = int(previous.argmax())
        copying = induction.copying_score(
            model.layers[layer].ov(), model.embedding.weight, model.unembedding
        )
        metrics = {
            "induction_score": float(scores.max()),
            "previous_token_score": float(previous.max()),
            "repeat_loss": repeat,
            "in_context": first - repeat,
            "copying": float(copying[head]),
        }
        if len(model.blocks) > 1:
            metrics["composition"] = composition(model.layers, note, layer, head)
        ablated = induction.ablations(model, tokens[:PATCHED], period)
        asked = patching.question(tokens[:PATCHED], period, job.settings.vocabulary)
        with_patches = patching.restoration_map(model, asked)
        metrics["restored"] = float(with_patches[0, note, asked.source]) + 0.0  # no -0
        names, written = lens.components_of(model, asked.clean)
        direction = model.unembedding.T[asked.answer]
        added = lens.direct_logit_attribution(written[:, :, -1], direction).mean(1)
    run.plot("phase_change", "valid/first_loss", "valid/repeat_loss")
    run.plot("scores", "valid/induction_score", "valid/previous_token_score")
    shown = patterns[layer][0, head].cpu().numpy()
    title = f"head {layer}.{head}, prefix-matching score {scores.max():.2f}"
    run.figure("induction_head", figures.attention_map(shown, tokens[0].tolist(), title))
    run.figure("restoration", figures.restoration(with_patches.numpy(), asked.source))
    heads = names[1:]
    run.figure("ablation", figures.bars(heads, ablated.flatten().tolist(), "repeat loss", repeat))
    run.figure("attribution", figures.bars(names, added.tolist(), "added to the answer's logit"))
    return metrics


def composition(layers: list, note: int, layer: int, head: int) -> float:
    """K-composition of head `note` of the first layer with this head, over the mean of the other
    pairs of the two layers.
    """
    later = layers[layer if layer else 1]
    pairs = induction.k_composition(layers[0].ov(), later.qk()).detach()
    others = (pairs.sum() - pairs[note, head]) / max(1, pairs.numel() - 1)
    return float(pairs[note, head] / others) if pairs.numel() > 1 else 1.0


def report_superposition(job: Superposition, run: Run) -> dict[str, float]:
    """Draws the phase diagram and the geometry."""
    trained, theory = job.phases()
    cells = job.settings.cells
    best = job.best()
    picked = job.geometry.weight[job.best_drawn()].detach()
    lowest = superposition.two_feature_losses(job.density, job.importance).amin(0)
    loss = superposition.expected_loss(job.phase.chosen(best), job.density, job.importance)
    shares = superposition.dimensionality(picked)
    density = job.density.view(cells, cells)[:, 0].tolist()
    importance = job.importance.view(cells, cells)[0].tolist()
    ours, exact = (each.view(cells, cells).cpu().numpy() for each in (trained, theory))
    names = superposition.PHASES
    run.figure("phases", figures.phases(ours, exact, density, importance, names))
    if job.settings.hidden == 2:
        some = torch.linspace(0, cells - 1, min(cells, 10)).round().long()
        run.figure("geometry", figures.geometry(
            picked.cpu()[some].numpy(), [density[i] for i in some], shares.cpu()[some].numpy()
        ))  # fmt: skip
    run.plot("agreement", "valid/phase_agreement")
    commonest = theory.bincount().max() / len(theory)
    run.note(better_than_theory=float((loss < 0.99 * lowest).float().mean()))
    return {
        "phase_agreement": 100 * float((trained == theory).float().mean()),
        "commonest_phase": 100 * float(commonest),
        "loss_excess": 100 * float((loss / lowest - 1).mean()),
        "sparsest_share": float(shares[-1].mean()),
    }


def report_sparse(job: Sparse, run: Run) -> dict[str, float]:
    """Measures the dictionary on test activations."""
    model, source = job.model, job.source
    x = source.batch(job.settings.tests, TEST, run.seed)
    fired = torch.zeros(job.settings.latents, dtype=torch.bool, device=x.device)
    used, reconstructed = 0, []
    with evaluating(model):
        for part in x.split(4096):
            f = model.encode(part)
            fired |= (f > 0).any(0)
            used += int((f > 0).sum())
            reconstructed.append(model.decode(f))
    metrics = {
        "explained_variance": 100 * float(sae.explained_variance(x, torch.cat(reconstructed))),
        "l0": used / len(x),
        "dead_share": 100 * float((~fired).float().mean()),
        "decoder_norm": float(model.decoder.detach().norm(dim=1).mean()),
    }
    run.plot("sparsity", "train/l1", "valid/l0")
    run.plot("dead", "train/dead_share")
    if source.truth is not None:
        found = sae.largest_cosines(source.truth, model.decoder.detach())
        random = sae.largest_cosines(source.truth, job.first)
        run.figure("cosines", figures.cosines(found.cpu().numpy(), random.cpu().numpy()))
        run.plot("recovery", "valid/mean_max_cosine")
        metrics["mean_max_cosine"] = float(
            sae.mean_max_cosine(source.truth, model.decoder.detach())
        )
        metrics["random_cosine"] = float(sae.mean_max_cosine(source.truth, job.first))
    if isinstance(source, TextSource):
        metrics |= spliced(job, source, run)
    return metrics


def spliced(job: Sparse, source: TextSource, run: Run) -> dict[str, float]:
    """How well the language model goes on from the reconstructions, and its logit lens."""
    model, windows = source.reader.model, source.reader.test.to(run.device)
    layers = range(model.shape.layers + 1)
    losses = torch.zeros(3 + len(layers), dtype=torch.float64)

    def from_dictionary(stream: Tensor) -> Tensor:
        return job.model(stream.flatten(0, 1) * source.scale).view_as(stream) / source.scale

    def from_mean(stream: Tensor) -> Tensor:
        return (source.mean / source.scale).expand_as(stream)

    changed: list[dict[str, Hook]] = [
        {}, {source.name: from_dictionary}, {source.name: from_mean},
    ]  # fmt: skip
    with evaluating(model, job.model):
        for part in windows.split(AT_ONCE):
            read = [run_with_hooks(model, part, hooks) for hooks in changed]
            streams = lens.streams_of(model, part)
            for i, logits in enumerate([*read, *(lens.logit_lens(model, s) for s in streams)]):
                losses[i] += induction.next_token_losses(logits.float(), part).sum().cpu()
    clean, ours, ablated, *by_layer = (losses / windows[:, 1:].numel()).tolist()
    run.figure("lens", figures.lens(by_layer))
    run.note(lens_losses=by_layer, loss=clean, spliced_loss=ours, mean_loss=ablated)
    return {"loss_recovered": 100 * (ablated - ours) / (ablated - clean)}
