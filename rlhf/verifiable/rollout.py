"""Answers drawn from a model with the log-probability of every token, and the same by one pass.

Drawing uses week 7's sampler with its cache. It computes the distribution of every token anyway,
so the log-probabilities of the sampler cost nothing: they are the `old` ones of the ratio. The
full pass (`token_logps`) must give the same numbers; `train/sampler_gap` logs how far they differ.

Letters: N answers, L tokens of a prompt, T tokens of an answer, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from labkit.data import batch_indices
from pretraining import GPT, generate
from reinforcement_learning import sample
from rlhf.verifiable import grpo
from rlhf.verifiable.arithmetic import END, Addition, Judge, score
from rlhf.verifiable.settings import GRPOSettings


def draw(model: GPT, prompt: Tensor, longest: int, group: int = 1) -> tuple[Tensor, Tensor]:
    """`group` answers to each prompt (P, L), at temperature 1: tokens and log-probabilities.

    Both are (N, T), with N = P group and T = longest. After END, tokens are END and
    log-probabilities mean nothing. A prompt is read once for all answers to it.
    """
    found: list[Tensor] = []

    def choose(logits: Tensor) -> Tensor:
        logps = logits.float().log_softmax(dim=-1)
        token = sample(logps)[:, None]
        found.append(logps.gather(1, token))
        return token

    answer = generate(model, prompt, longest, end=END, chooser=choose, copies=group)
    logps = torch.cat(found, dim=1)
    room = logps.new_zeros(len(logps), longest - logps.shape[1])  # all ended early
    return answer, torch.cat([logps, room], dim=1)


def token_logps(model: GPT, prompt: Tensor, answer: Tensor, group: int = 1) -> Tensor:
    """Log-probability of every answer token, with its gradient: (N, L), (N, T) -> (N, T).

    The rows of each `group` have the same prompt, one group after the other. A prompt is read once
    for its group: with 8 short answers to it, that is about half of all the work.
    """
    caches = model.new_caches(len(prompt) // group, prompt.shape[1] + answer.shape[1] - 1)
    states = model.hidden(prompt[::group], caches)[:, -1:].repeat_interleave(group, dim=0)
    for cache in caches:
        cache.repeat(group)
    if answer.shape[1] > 1:  # the last token predicts nothing
        states = torch.cat([states, model.hidden(answer[:, :-1], caches)], dim=1)
    logps = model.logits(states).float().log_softmax(dim=-1)  # (N, T, V)
    return logps.gather(-1, answer[..., None]).squeeze(-1)


def largest_gap(logps: Tensor, batch: grpo.Batch) -> Tensor:
    """Largest difference between these log-probabilities (N, T) and the sampler's own."""
    return ((logps - batch.old_logps).detach().abs() * batch.mask).max()


class Collector:
    """Draws groups of answers, has them judged, and makes batches of them."""

    def __init__(
        self, task: Addition, judge: Judge, settings: GRPOSettings, pairs: np.ndarray, seed: int
    ) -> None:
        """`pairs` (P, 2) are the questions; which of them a step asks depends on `seed`."""
        self.task, self.judge, self.settings = task, judge, settings
        self.pairs, self.seed = pairs, seed
        self.tokens = {"drawn": 0, "trained": 0}
        """Tokens so far, the prompts' included: for the count of operations."""

    def collect(self, model: GPT, step: int) -> tuple[grpo.Batch, Tensor]:
        """The batch of a step, and all rewards (P, G) that were given for it.

        Groups of equal rewards are left out where they would not change the gradient, so the batch
        may be empty. With dynamic sampling, questions are drawn again up to `redraws` times in all.
        Raises RunFailed as `score` does.
        """
        settings, batches, rewards = self.settings, [], []
        wanted = settings.prompts * settings.group
        for redraw in range(settings.redraws):
            number = step * settings.redraws + redraw
            index = batch_indices(len(self.pairs), settings.prompts, number, self.seed)
            batch, reward = self.draw_groups(model, self.pairs[index])
            if settings.dynamic or settings.beta == 0:  # else: the penalty is for all answers
                kept = grpo.informative(reward).repeat_interleave(settings.group)
                batch = batch.rows(kept, settings.loss, settings.dynamic)
            batches.append(batch)
            rewards.append(reward)
            if sum(len(each.answer) for each in batches) >= wanted:
                break
        if len(batches) > 1:
            columns = zip(*(each.columns for each in batches), strict=True)
            prompt, answer, mask, logps, advantage = (torch.cat(c)[:wanted] for c in columns)
            batch = grpo.Batch(prompt, answer, mask, logps, advantage)
        length = batch.prompt.shape[1]
        trained = int(batch.mask.sum()) + length * len(batch.mask)
        self.tokens["trained"] += trained * settings.iterations
        return batch, torch.cat(rewards)

    def draw_groups(self, model: GPT, pairs: np.ndarray) -> tuple[grpo.Batch, Tensor]:
        """G answers to each of the sums (P, 2), as a batch of all; and rewards (P, G)."""
        group, device = self.settings.group, model.embedding.weight.device
        each = pairs.repeat(group, axis=0)
        asked = torch.from_numpy(self.task.prompts(pairs)).to(device)
        answer, logps = draw(model, asked, self.task.longest, group)
        prompt = asked.repeat_interleave(group, dim=0)
        said = self.task.text(answer.cpu().numpy())
        reward = torch.from_numpy(score(self.judge, said, each)).to(device).view(-1, group)
        mask = grpo.answer_mask(answer, END)
        self.tokens["drawn"] += int(mask.sum()) + asked.numel()
        scale = self.settings.loss != "dr_grpo"
        advantage = grpo.group_advantages(reward, scale).flatten()
        return grpo.Batch(prompt, answer, mask, logps, advantage), reward
