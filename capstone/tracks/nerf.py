"""Track nerf: from photographs to a turntable, by week 23."""

from __future__ import annotations

from pathlib import Path

from capstone.stages import Claim, Once, Stage
from capstone.tracks import weeks
from labkit import Run, UsageError, course

WEEK = "cross_frontiers"


class Nerf:
    """The stages."""

    def __init__(self, run: Run) -> None:
        """Raises UsageError while week 23 is not in this clone."""
        if not course.week(WEEK).built:
            raise UsageError(
                f"track=nerf needs week 23 ({WEEK}), which is not built in this clone; "
                "type track=alignment"
            )
        self.run = run
        run.environment("nerf")

    def stages(self) -> list[Stage]:
        """In the order in which they are read."""
        return [
            Stage(
                "fit", (), lambda: Once(self.fit), does="a radiance field from photographs",
                claims=(Claim("psnr", WEEK),),
            ),
            Stage("turn", ("fit",), lambda: Once(self.turn), does="a turntable around the object"),
        ]  # fmt: skip

    def fit(self, folder: Path) -> dict[str, float]:
        done = weeks.week_run(self.run, WEEK)
        weeks.keep_pictures(done, folder, ("views.png", "training.png"))
        return weeks.metrics_of(done / "result.json", folder, ("psnr", "ssim"))

    def turn(self, folder: Path) -> dict[str, float]:
        done = weeks.week_run(self.run, WEEK)
        films = [file.name for file in sorted((done / "samples").glob("*.gif"))]
        weeks.keep_pictures(done, folder, films)
        return {"films": float(len(films))}
