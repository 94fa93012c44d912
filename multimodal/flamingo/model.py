"""Flamingo (Alayrac et al. 2022): pictures for a language model whose own weights stay as they are.

    picture → frozen image tower → S states → perceiver resampler → R latents         section 2.1
    text    → before each frozen layer: x + tanh(a) attention(x, latents)             section 2.2
                                        x + tanh(b) mlp(x)

Only the resampler and the gated layers are trained. The gates a and b begin at 0, so at first every
logit is exactly the language model's.

Where a picture stands, the text has one special token. A token sees the last picture at or before
it and no other (section 2.3); what it knows of earlier ones has come through the language model's
own attention. A token before the first picture passes unchanged, so that text without pictures
always gets the language model's own logits. (In the paper the gated MLP acts on such tokens too.)

Letters: B rows, T tokens, M pictures in a row, S states of a picture, R latents of a picture,
C width of the language model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import MultiHeadAttention
from labkit import exercise
from pretraining import GPT


@exercise(minutes=15)
def perceiver_attention(attention: nn.Module, latents: Tensor, media: Tensor) -> Tensor:
    """What the latents read off a picture: the update that is added to them (section 2.1).

    The queries are the latents. Keys and values come from the picture's states *and* the latents
    themselves, one after the other along the axis of positions, so that a latent can see what the
    others have taken.

    Args:
        attention: called as attention(x, context=...), with x (B, Tq, C) and context (B, Tk, C);
            queries are made from x, keys and values from the context. Its result is (B, Tq, C).
        latents: (B, R, C).
        media: (B, S, C), states of one picture in each row.
    Returns:
        (B, R, C), without the latents themselves added.
    """
    return attention(latents, context=torch.cat([media, latents], dim=1))


@exercise(minutes=20)
def media_mask(tokens: Tensor, picture: int, pictures: int, latents: int) -> Tensor:
    """Which latents each token may attend to: those of the last picture at or before it.

    Args:
        tokens: int64 (B, T).
        picture: the token that stands where a picture is; its number m in the row, from 0, is that
            of the picture.
        pictures: M, the pictures in a row; a row may use fewer.
        latents: R of each; latents m R to m R + R - 1 belong to picture m.
    Returns:
        bool (B, T, M R), True where a token may attend. A row of tokens before the first picture
        has no True.
    """
    number = (tokens == picture).cumsum(dim=1) - 1  # (B, T), -1 before the first
    owner = torch.arange(pictures, device=tokens.device).repeat_interleave(latents)  # (M R,)
    return number[:, :, None] == owner


@exercise(minutes=10)
def gated_residual(x: Tensor, update: Tensor, gate: Tensor, sees: Tensor) -> Tensor:
    """x + tanh(gate) update where a token sees a picture, and x itself elsewhere.

    With gate 0 the result is exactly x; the gate still gets its gradient.

    Args:
        x: (B, T, C), not changed.
        update: (B, T, C).
        gate: 0-d.
        sees: bool (B, T).
    Returns:
        (B, T, C). An update that is not finite has no effect on a token that sees no picture.
    """
    return torch.where(sees[:, :, None], x + gate.tanh() * update, x)


def mlp(width: int) -> nn.Sequential:
    """(..., C) -> (..., C) by way of 4 C, a norm before it."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width, bias=False), nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )  # fmt: skip


class Resampler(nn.Module):
    """Any number of states of a picture to R latents: (N, S, states' width) -> (N, R, C)."""

    def __init__(self, states: int, width: int, latents: int, layers: int, heads: int) -> None:
        """`states` is the width of the picture's states."""
        super().__init__()
        self.into = nn.Linear(states, width)
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.attentions = nn.ModuleList(MultiHeadAttention(width, heads) for _ in range(layers))
        self.mlps = nn.ModuleList(mlp(width) for _ in range(layers))
        self.norm_media, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, states: Tensor) -> Tensor:
        media = self.norm_media(self.into(states))
        x = self.latents.expand(len(states), -1, -1)
        for norm, attention, feed in zip(self.norms, self.attentions, self.mlps, strict=True):
            x = x + perceiver_attention(attention, norm(x), media)
            x = x + feed(x)
        out: Tensor = self.norm_out(x)
        return out


class GatedCrossAttention(nn.Module):
    """What stands before a frozen layer: (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.mlp = mlp(width)
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, media: Tensor, mask: Tensor) -> Tensor:
        """media: (B, M R, C). mask: bool (B, T, M R), see `media_mask`."""
        sees = mask.any(dim=2)
        update = self.attention(self.norm(x), context=media, mask=mask[:, None])
        x = gated_residual(x, update, self.gates[0], sees)
        return gated_residual(x, self.mlp(x), self.gates[1], sees)


class Flamingo(nn.Module):
    """Tokens and the states of their pictures to logits of the next token."""

    def __init__(
        self, language: GPT, picture: int, states: int, latents: int, layers: int, heads: int
    ) -> None:
        """Args:
        language: frozen here.
        picture: the token that stands where a picture is.
        states: width of a picture's states.
        latents: R.
        layers: of the resampler.
        heads: of the resampler and of the gated layers.
        """
        super().__init__()
        self.language, self.picture, self.count = language.requires_grad_(False), picture, latents
        width = language.shape.width
        self.resampler = Resampler(states, width, latents, layers, heads)
        self.gated = nn.ModuleList(GatedCrossAttention(width, heads) for _ in language.layers)
        self.train()

    def train(self, mode: bool = True) -> Flamingo:
        """As in nn.Module, but the frozen language model never has dropout."""
        super().train(mode)
        self.language.eval()
        return self

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that are trained, with their names."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def hidden(self, tokens: Tensor, states: Tensor) -> Tensor:
        """The input of the language model's head: int64 (B, T), (B, M, S, states' width) ->
        (B, T, C).

        Raises ValueError for more tokens than the context, or more picture tokens in a row than
        pictures.
        """
        language, length = self.language, tokens.shape[1]
        pictures = states.shape[1]
        if length > language.shape.context:
            raise ValueError(f"{length} tokens do not fit into {language.shape.context}")
        if int((tokens == self.picture).sum(dim=1).max()) > pictures:
            raise ValueError(f"a row has more picture tokens than its {pictures} pictures")
        media = self.resampler(states.flatten(0, 1)).unflatten(0, states.shape[:2]).flatten(1, 2)
        mask = media_mask(tokens, self.picture, pictures, self.count)
        # From here on as in week 7's GPT.hidden, with a gated layer before each of its own.
        x = language.embedding(tokens)
        if language.positions is not None:
            x = x + language.positions.weight[:length]
        x = language.embedding_norm(x)
        turn = language.turn[:length] if language.architecture == "modern" else None
        for gated, block in zip(self.gated, language.layers, strict=True):
            x = block(gated(x, media, mask), turn, language.causal, None)
        out: Tensor = language.norm(x)
        return out

    def forward(self, tokens: Tensor, states: Tensor) -> Tensor:
        """Logits (B, T, V). Raises as `hidden` does."""
        return self.language.logits(self.hidden(tokens, states))


def answer_loss(model: Flamingo, tokens: Tensor, states: Tensor, asked: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens to be predicted, in nats, a 0-d tensor.

    Args:
        asked: bool (B, T), True at the tokens that are predicted from those before them; never at
            the first token of a row.
    """
    before = model.hidden(tokens, states)[:, :-1][asked[:, 1:]]
    return F.cross_entropy(model.language.logits(before).float(), tokens[:, 1:][asked[:, 1:]])


def without_pictures(language: GPT, tokens: Tensor, asked: Tensor) -> Tensor:
    """The same loss of the language model alone."""
    before = language.hidden(tokens)[:, :-1][asked[:, 1:]]
    return F.cross_entropy(language.logits(before).float(), tokens[:, 1:][asked[:, 1:]])


def gates(model: Flamingo) -> dict[str, Any]:
    """Mean absolute opening tanh of both kinds of gates over the layers, for the log."""
    opened = torch.stack([layer.gates for layer in model.gated]).detach().tanh().abs().mean(0)  # type: ignore[misc]
    return {"train/gate_attention": opened[0], "train/gate_mlp": opened[1]}
