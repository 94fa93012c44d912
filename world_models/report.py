"""The pictures of a run: its curves, and an episode as it is, as V sees it, and as M dreams it."""

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


CURVES: dict[str, dict[str, tuple[str, ...]]] = {
    "world_model": {"model": ("train/nll",), "search": ("search/mean", "search/best")},
    "dreamer": {"model": ("train/model_loss",), "imagined": ("train/imagined", "train/driven")},
    "ppo": {"value": ("train/value_loss",)},
}
"""Per method, what is drawn and from which logged numbers."""


def curves(run: Run, method: str, looks: bool) -> None:
    """Draw what training logged; with `looks`, also the returns that were measured on the way.

    Dreamer's reward per step in imagination stands beside the one on the track: a world model that
    the policy deceives shows a gap that grows.
    """
    for name, keys in CURVES[method].items():
        run.plot(name, *keys)
    if looks:
        run.plot("return", "eval/return")


def pictures(run: Run, driver: Driver, model: MDNRNN, env_id: str, temperature: float) -> None:
    """Draw the film and its moments."""
    films = film(driver, model, env_id, temperature, run.seed)
    run.gif("dream", figures.beside(*films), fps=12)
    run.grid("dream", figures.moments(*films), columns=figures.MOMENTS)


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
