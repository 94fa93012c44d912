"""The pictures of a run: one episode in reality, as V sees it, and as M dreams it."""

from __future__ import annotations

import numpy as np
import torch

from labkit import Run
from world_models import figures, mdn
from world_models.envs import open_copies
from world_models.play import Driver
from world_models.rnn import MDNRNN

FRAMES = 80
WARM_UP = 8
"""Frames that M sees as they are, before it is given the actions alone."""


def pictures(run: Run, driver: Driver, model: MDNRNN, env_id: str, temperature: float) -> None:
    """Draw the film and its moments, and the curves of M and of the search."""
    films = film(driver, model, env_id, temperature, run.seed)
    run.gif("dream", figures.beside(*films), fps=12)
    run.grid("dream", figures.moments(*films), columns=figures.MOMENTS)
    run.plot("model", "train/nll")
    run.plot("search", "search/mean", "search/best", "eval/return")


@torch.no_grad()
def film(
    driver: Driver, model: MDNRNN, env_id: str, temperature: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One episode of the test, or its first FRAMES frames, three times, uint8 (T, H, W, 3) each:
    the real frames; each one encoded and decoded by V; and M's dream of them from the same actions.
    """
    env = open_copies(env_id, 1, test=True)
    frame, _ = env.reset(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    state = model.blank(1)
    real, seen, dreamed = [], [], []
    for t in range(FRAMES):
        z = driver.see(frame)
        if t < WARM_UP:
            dream = z
        real.append(np.array(frame[0]))
        seen.append(z)
        dreamed.append(dream)
        action = driver(frame)
        frame, _, terminated, truncated, _ = env.step(action)
        if terminated[0] or truncated[0]:
            break
        state = model.step(dream, torch.from_numpy(action).to(z.device), state)
        uniform = torch.rand(z.shape, generator=generator).to(z.device)
        normal = torch.randn(z.shape, generator=generator).to(z.device)
        dream = mdn.sample(model.predict(state[0]).latent, temperature, uniform, normal)
    env.close()
    pictures = driver.vision.pictures
    return np.stack(real), pictures(torch.cat(seen)), pictures(torch.cat(dreamed))
