"""The tracks of the capstone: each is a list of stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capstone.settings import AlignmentSettings
    from capstone.stages import Stage
    from labkit import Run


def stages(track: str, settings: AlignmentSettings, run: Run) -> Sequence[Stage]:
    """The stages of a track. Raises UsageError for a track whose weeks are not in this clone."""
    if track == "alignment":
        from capstone.tracks.alignment import Alignment

        return Alignment(settings, run).stages()
    if track == "world_model":
        from capstone.tracks.world_model import WorldModel

        return WorldModel(run).stages()
    if track == "multimodal":
        from capstone.tracks.multimodal import Multimodal

        return Multimodal(run).stages()
    from capstone.tracks.nerf import Nerf

    return Nerf(run).stages()
