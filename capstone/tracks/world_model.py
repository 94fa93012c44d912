"""Track world_model: dream, act, film. Week 14 learns a world, drives in it, and shows what it
dreamed."""

from __future__ import annotations

from pathlib import Path

from capstone.stages import Claim, Once, Stage
from capstone.tracks import weeks
from labkit import Run

WEEK = "world_models"


class WorldModel:
    """The stages."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.environment("CarRacing-v3" if run.size == "full" else "lab/MiniTrack-v0")

    def stages(self) -> list[Stage]:
        """In the order in which they are read."""
        return [
            Stage(
                "dream", (), lambda: Once(self.dream),
                does="V, M and C: a world that can be dreamed, and a driver that learned in it",
                claims=(Claim("nll_gain", WEEK),),
            ),
            Stage(
                "act", ("dream",), lambda: Once(self.act), does="the driver on the real track",
                claims=(Claim("return_ratio", WEEK),),
            ),
            Stage("film", ("act",), lambda: Once(self.film), does="reality, V's view, M's dream"),
        ]  # fmt: skip

    def dream(self, folder: Path) -> dict[str, float]:
        found = weeks.week_run(self.run, WEEK)
        weeks.keep_pictures(found, folder, ("model.png", "search.png"))
        return weeks.metrics_of(
            found / "result.json", folder, ("nll_gain", "model_nll", "dream_return")
        )

    def act(self, folder: Path) -> dict[str, float]:
        found = weeks.week_run(self.run, WEEK)
        weeks.keep_pictures(found, folder, ("return.png",))
        return weeks.metrics_of(
            found / "result.json", folder, ("return", "random_return", "return_ratio")
        )

    def film(self, folder: Path) -> dict[str, float]:
        found = weeks.week_run(self.run, WEEK)
        weeks.keep_pictures(found, folder, ("dream.gif", "dream.png"))
        return {"pictures": float(len(list(folder.iterdir())))}
