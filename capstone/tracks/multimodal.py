"""Track multimodal: from CLIP to Flamingo to a search page, all by week 17."""

from __future__ import annotations

from pathlib import Path

from capstone.stages import Claim, Once, Stage
from capstone.tracks import weeks
from labkit import Run

WEEK = "multimodal"
QUERIES = 6
SHOWN = 6
GALLERY = 400
"""Rendered scenes that are searched, none of which a model was trained on."""
SEED = 24
METRICS = ("recall_at_1", "held_out_recall_at_1")
"""Of week 17, which the stage reports."""


class Multimodal:
    """The stages."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.generated("scenes", {"test": GALLERY}, "")

    def stages(self) -> list[Stage]:
        """In the order in which they are read."""
        return [
            Stage(
                "clip", (), lambda: Once(self.clip), does="pictures and captions in one space",
                claims=(Claim("recall_at_1", WEEK),),
            ),
            Stage(
                "flamingo", ("clip",), lambda: Once(self.flamingo),
                does="a frozen language model that sees", claims=(Claim("answer_accuracy", WEEK),),
            ),
            Stage("search", ("clip",), lambda: Once(self.search), does="a page of what was found"),
        ]  # fmt: skip

    def clip(self, folder: Path) -> dict[str, float]:
        from multimodal import Pipeline

        found = self.run.artifact(WEEK, "scenes")
        if found is None:
            done = weeks.week_run(self.run, WEEK)
            Pipeline.load(done / "model").save(folder / "model")
            weeks.keep_pictures(done, folder, ("rankings.png",))
            return weeks.metrics_of(done / "result.json", folder, METRICS)
        Pipeline.load(found).save(folder / "model")
        return weeks.metrics_of(found / "record.json", folder, METRICS)

    def flamingo(self, folder: Path) -> dict[str, float]:
        done = weeks.week_run(self.run, f"{WEEK}.flamingo")
        weeks.keep_pictures(done, folder, ("shots.png",))
        captions = done / "samples" / "captions.txt"
        if captions.is_file():
            text = captions.read_text(encoding="utf-8")
            (folder / "captions.txt").write_text(text[:2000], encoding="utf-8")
        return weeks.metrics_of(done / "result.json", folder, ("answer_accuracy", "shots_4"))

    def search(self, folder: Path) -> dict[str, float]:
        """The best pictures for some captions, one row each; the share of first hits that fit."""
        import numpy as np
        import torch

        from labkit.show.pictures import save_grid
        from multimodal import Pipeline, captions_of, render, scenes

        pipeline = Pipeline.load(self.run.dir / "stages" / "clip" / "model")
        drawn = scenes.draw(GALLERY, np.arange(scenes.COMBINATIONS), 1.0, seed=SEED)
        pictures = torch.from_numpy(render(drawn, pipeline.model.shape.side, seed=SEED))
        said = [captions[0] for captions in captions_of(drawn)]
        scores = pipeline.embed_texts(said) @ pipeline.embed_pictures(pictures).T
        best = scores.topk(SHOWN, dim=1).indices
        asked = torch.arange(QUERIES) * (GALLERY // QUERIES)
        save_grid(folder / "search.png", list(pictures[best[asked].flatten()]), SHOWN)
        lines = [f"row {row + 1}: {said[i]}" for row, i in enumerate(asked.tolist())]
        (folder / "queries.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        fits = [said[int(best[i, 0])] == said[i] for i in range(GALLERY)]
        return {"first_hit": 100 * sum(fits) / GALLERY}
