"""What a run leaves behind: metrics and pictures."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from cross_frontiers.folding import dca, evaluate, figures, geometry
from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding.frames import Frames
from cross_frontiers.folding.pdb import read_a3m
from cross_frontiers.folding.structure import fape
from cross_frontiers.folding.tasks import Contacts, Structures, Target
from labkit import Run
from labkit.data import ProteinData, here

LONGEST = 150
"""Columns of a real alignment that is looked at: DCA inverts a matrix of 20 times as many rows."""


def report_contacts(run: Run, task: Contacts) -> dict[str, float]:
    """Precision on test families beside DCA, mutual information and a guess; draws contacts.png,
    and maps of real alignments where they are on this machine.
    """
    train, test = task.families["train"], task.families["test"]
    ours = task.scores(test.msa)
    coupled = np.stack([dca.mean_field(msa) for msa in test.msa])
    mutual = np.stack([dca.mutual_information(msa) for msa in test.msa])
    guess = np.repeat(evaluate.separation_scores(train.contacts)[None], len(test), axis=0)
    run.figure("contacts", figures.contact_maps(
        {"Evoformer": ours[0], "mean-field DCA": coupled[0], "mutual information": mutual[0]},
        test.contacts[0],
    ))  # fmt: skip
    run.plot("training", "train/loss")
    if run.size != "smoke" and here("proteins"):
        run.note(real_alignments=_real_alignments(run, task, test.msa.shape[1]))
    precision = evaluate.mean_precision
    reached, before = precision(ours, test.contacts), precision(coupled, test.contacts)
    return {
        "precision": reached,
        "dca_precision": before,
        "dca_gain": reached - before,
        "mi_precision": precision(mutual, test.contacts),
        "guess_precision": precision(guess, test.contacts),
        "shared_folds": evaluate.shared_folds(train.contacts, test.contacts),
    }


def _real_alignments(run: Run, task: Contacts, rows: int) -> dict[str, dict[str, float]]:
    """For each real alignment that is not too long: how many of the L best pairs DCA and the
    network have in common, in %, and how many random rankings would. There is no true structure of
    these at hand, so agreement is all that can be told.
    """
    found = {}
    for name, text in run.data("proteins", ProteinData).alignments.items():
        msa = read_a3m(text, name)
        if msa.shape[1] > LONGEST:
            continue
        chosen = np.linspace(0, len(msa) - 1, min(rows, len(msa))).round().astype(int)
        ours, coupled = task.scores(msa[None, chosen])[0], dca.mean_field(msa)
        run.figure(f"real_{name}", figures.contact_maps(
            {f"{name}: Evoformer, {len(chosen)} rows": ours,
             f"mean-field DCA, {len(msa)} rows": coupled}, None,
        ))  # fmt: skip
        length = len(ours)
        common = len(evaluate.top_pairs(ours) & evaluate.top_pairs(coupled))
        pairs = (length - evaluate.SEPARATION) * (length - evaluate.SEPARATION + 1) / 2
        found[name] = {"agreement": 100 * common / length, "by_chance": 100 * length / pairs}
    return found


def report_structures(run: Run, task: Structures, first_loss: float) -> dict[str, float]:
    """Scores of the proteins learned, the worst RMSD among them; draws traces.png."""
    rows, drawn = {}, []
    for its in task.targets:
        true, points = its.chain.atoms[:, 1], task.points(its)
        rows[its.chain.name] = {
            "rmsd": geometry.rmsd(points, true),
            "lddt": geometry.lddt(points, true),
            "tm_score": geometry.tm_score(points, true),
        }
        title = f"{its.chain.name}, {len(true)} residues, RMSD {rows[its.chain.name]['rmsd']:.2f} Å"
        drawn.append((title, geometry.superpose(points, true), true))
    run.figure("traces", figures.traces(drawn))
    run.plot("training", "train/loss", logy=True)
    run.note(proteins=rows)
    return {
        "rmsd": max(row["rmsd"] for row in rows.values()),
        "lddt": float(np.mean([row["lddt"] for row in rows.values()])),
        "tm_score": float(np.mean([row["tm_score"] for row in rows.values()])),
        "rotation_gap": max(rotation_gap(task.predict(its), its) for its in task.targets),
        "first_loss": first_loss,
    }


def rotation_gap(predicted: Frames, its: Target) -> float:
    """By how much FAPE changes, relatively, when the true structure is turned and moved as a whole:
    0, but for rounding.
    """
    true = Frames(*(part.double() for part in its.frames))
    guess = Frames(*(part.double() for part in predicted))
    rotation = torch.from_numpy(Rotation.from_euler("zyx", (100, 40, -70), True).as_matrix())
    motion = Frames(rotation.to(true.rotation), true.translation.new_tensor([7.0, -20.0, 3.0]))
    other = rigid.compose(motion, true)
    before, after = (
        fape(guess, t, guess.translation, t.translation).mean().item() for t in (true, other)
    )
    return abs(after / before - 1)
