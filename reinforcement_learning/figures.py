"""What a person sees of a run: an episode of a policy, and tables of values on a grid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from reinforcement_learning.evaluate import Policy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARROWS = "←↓→↑"
"""FrozenLake's actions 0 to 3."""


def film(policy: Policy, env_id: str, seed: int) -> tuple[list[np.ndarray], int]:
    """Play one episode; returns its pictures, halved, uint8 (H, W, 3), and how many a second."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # draw without a display
    env = gym.make(env_id, render_mode="rgb_array")
    first = int(env.action_space.start)  # type: ignore[attr-defined]  # Discrete
    obs, _ = env.reset(seed=seed)
    fps = int(env.metadata["render_fps"])
    every = max(1, fps // 25)  # no film needs more than 25 a second
    frames, over, t = [], False, 0
    while not over:
        if t % every == 0:
            frames.append(np.asarray(env.render())[::2, ::2])
        obs, _, terminated, truncated, _ = env.step(first + int(policy(np.asarray(obs)[None])[0]))
        over, t = terminated or truncated, t + 1
    frames.append(np.asarray(env.render())[::2, ::2])
    env.close()
    return frames, fps // every


def values(env_id: str, **q: np.ndarray) -> Figure | None:
    """Values and greedy policies of named tables (S, A), side by side; None unless it is a grid."""
    from labkit.show.pictures import new_figure

    desc = getattr(gym.make(env_id).unwrapped, "desc", None)
    if desc is None or any(table.shape != (desc.size, 4) for table in q.values()):
        return None
    figure = new_figure(4.2 * len(q), 4.2)
    for i, (name, table) in enumerate(q.items()):
        axes = figure.add_subplot(1, len(q), i + 1)
        value = table.max(axis=1).reshape(desc.shape)
        axes.imshow(value, vmin=0, vmax=1.4 * max(t.max() for t in q.values()), cmap="viridis")
        for (row, column), field in np.ndenumerate(desc):
            arrow = ARROWS[table[row * desc.shape[1] + column].argmax()]
            mark = {b"H": "hole", b"G": "goal"}.get(field, f"{arrow}\n{value[row, column]:.3f}")
            axes.text(column, row, mark, ha="center", va="center", color="white", fontsize=9)
        axes.set_title(name.replace("_", " "))
        axes.set_xticks([])
        axes.set_yticks([])
    return figure
