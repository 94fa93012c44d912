"""CLIP's two towers, which map pictures and captions into one space (Radford et al. 2021, section
2.4).

    picture → patches, class token, positions → transformer → its class token → image projection
    caption → tokens, positions → causal transformer → its END token → text projection

The image tower is a vision transformer (Dosovitskiy et al. 2021) with a norm more at its input; the
text tower is GPT-2's architecture. Both open the published weights: see huggingface.py. For small
pictures and short training, `stem=conv` replaces the one large convolution by several small ones
(Xiao et al. 2021, Early convolutions help transformers see better).

Attention is week 5's. Letters: B batch, S pixels of a side, P patches, T tokens, C width, d
dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention import MultiHeadAttention
from labkit import exercise

Activation = Literal["gelu", "quick_gelu"]
Stem = Literal["conv", "patch"]
EPS = 1e-5
"""Added to the variance inside a norm."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the channels of OpenAI's training pictures, in [0, 1]."""


@dataclass(frozen=True)
class TowerShape:
    """The size of one transformer."""

    width: int
    layers: int
    heads: int
    inner: int
    """Width between the two matrices of an MLP."""
    activation: Activation = "gelu"


@dataclass(frozen=True)
class CLIPShape:
    """All numbers of a model: what its config.json holds."""

    image: TowerShape
    text: TowerShape
    side: int
    patch: int
    vocabulary: int
    context: int
    end: int
    """The number of END among the tokens."""
    embedding: int
    """d."""
    stem: Stem = "patch"
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD

    def __post_init__(self) -> None:
        """Raises ValueError for sizes that do not fit each other."""
        for tower in (self.image, self.text):
            if tower.width % tower.heads:
                raise ValueError(f"width {tower.width} is no multiple of {tower.heads} heads")
        if self.side % self.patch:
            raise ValueError(f"patches of {self.patch} do not fill a side of {self.side} pixels")
        if self.stem == "conv" and (self.patch & (self.patch - 1) or self.patch < 2):
            raise ValueError(
                f"stem=conv halves the side, so patch must be 2, 4, 8, ...: {self.patch}"
            )


@exercise(minutes=15)
def pool_end(states: Tensor, tokens: Tensor, end: int) -> Tensor:
    """The state at the *first* END of each row: the only place that has read the whole caption.

    CLIP's tokenizer also pads with END, so the last token or the last END is wrong. END need not be
    the highest number: tokens that were added to a vocabulary come after it.

    Args:
        states: (B, T, C), any floating type.
        tokens: int64 (B, T).
        end: the number of END.
    Returns:
        (B, C), differentiable in the states.
    Raises:
        ValueError when a row has no END.
    """
    is_end = tokens == end
    if not is_end.any(dim=1).all():
        raise ValueError(f"a row of tokens has no END ({end})")
    first = is_end.int().argmax(dim=1)  # of equal maxima, the first
    return states.take_along_dim(first[:, None, None], dim=1)[:, 0]


def quick_gelu(x: Tensor) -> Tensor:
    """x σ(1.702 x): OpenAI's approximation of GELU, with which its weights were trained. Opening
    them with the exact GELU costs some points of accuracy and raises no error."""
    return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """One layer, the norm before each sublayer: (B, T, C) -> (B, T, C)."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=EPS)
        self.attention = MultiHeadAttention(shape.width, shape.heads, bias=True)
        self.norm2 = nn.LayerNorm(shape.width, eps=EPS)
        self.up = nn.Linear(shape.width, shape.inner)
        self.down = nn.Linear(shape.inner, shape.width)
        self.quick = shape.activation == "quick_gelu"
        for linear in (self.attention.out, self.down):  # two additions a layer, see week 7
            nn.init.normal_(linear.weight, std=(2 * shape.layers * linear.in_features) ** -0.5)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attention(self.norm1(x), causal=causal)
        h = self.up(self.norm2(x))
        h = quick_gelu(h) if self.quick else F.gelu(h)
        out: Tensor = x + self.down(h)
        return out


def conv_stem(width: int, patch: int) -> nn.Sequential:
    """(B, 3, S, S) -> (B, C, S / patch, S / patch) by convolutions that halve the side each."""
    layers: list[nn.Module] = []
    channels = 3
    for left in range(patch.bit_length() - 2, -1, -1):
        after = width if left == 0 else max(32, width >> left)
        convolution = nn.Conv2d(channels, after, 3, stride=2, padding=1)
        layers += [convolution, nn.GroupNorm(1, after), nn.GELU()]
        channels = after
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


class ImageTower(nn.Module):
    """Pictures to one state each, or to a state for every patch."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: CLIPShape) -> None:
        super().__init__()
        tower, width = shape.image, shape.image.width
        self.side, self.width = shape.side, width
        if shape.stem == "conv":
            self.stem: nn.Module = conv_stem(width, shape.patch)
        else:
            self.stem = nn.Conv2d(3, width, shape.patch, stride=shape.patch, bias=False)
        patches = (shape.side // shape.patch) ** 2
        self.class_token = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + patches, width) * 0.02)
        self.norm_in = nn.LayerNorm(width, eps=EPS)
        self.blocks = nn.ModuleList(Block(tower) for _ in range(tower.layers))
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        for name, values in (("mean", shape.mean), ("std", shape.std)):
            self.register_buffer(name, torch.tensor(list(values)).view(3, 1, 1), persistent=False)

    def states(self, pictures: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, 1 + P, C), the class token's state first."""
        x = self.stem((pictures / 255 - self.mean) / self.std)
        x = x.flatten(2).transpose(1, 2)  # (B, P, C)
        first = self.class_token.to(x.dtype).expand(len(x), 1, -1)
        x = self.norm_in(torch.cat([first, x], dim=1) + self.positions)
        for block in self.blocks:
            x = block(x, causal=False)
        return x

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, C)."""
        out: Tensor = self.norm_out(self.states(pictures)[:, 0])
        return out


class TextTower(nn.Module):
    """Captions to one state each."""

    def __init__(self, shape: CLIPShape) -> None:
        super().__init__()
        width = shape.text.width
        self.context, self.end = shape.context, shape.end
        self.embedding = nn.Embedding(shape.vocabulary, width)
        self.positions = nn.Parameter(torch.randn(shape.context, width) * 0.01)
        self.blocks = nn.ModuleList(Block(shape.text) for _ in range(shape.text.layers))
        self.norm_out = nn.LayerNorm(width, eps=EPS)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) -> (B, C). What stands behind END changes nothing, since a token sees only
        those before it. Raises ValueError for more tokens than the context, or a row without END.
        """
        if tokens.shape[1] > self.context:
            raise ValueError(f"{tokens.shape[1]} tokens do not fit into {self.context}")
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        out: Tensor = self.norm_out(pool_end(x, tokens, self.end))
        return out


class CLIP(nn.Module):
    """Both towers, their projections into d dimensions, and the numbers of the loss."""

    def __init__(self, shape: CLIPShape, scale: float = 1 / 0.07, bias: float = -10.0) -> None:
        """`scale` and `bias` are the first values of the logit scale and, for SigLIP, its bias."""
        super().__init__()
        self.shape = shape
        self.image, self.text = ImageTower(shape), TextTower(shape)
        self.image_projection = nn.Linear(shape.image.width, shape.embedding, bias=False)
        self.text_projection = nn.Linear(shape.text.width, shape.embedding, bias=False)
        for linear in (self.image_projection, self.text_projection):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def encode_images(self, pictures: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) -> (B, d), not of unit length."""
        out: Tensor = self.image_projection(self.image(pictures))
        return out

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) -> (B, d), not of unit length."""
        out: Tensor = self.text_projection(self.text(tokens))
        return out

    def forward(self, pictures: Tensor, tokens: Tensor) -> Tensor:
        """Logits (B of pictures, B of captions): the cosine of each pair times the scale."""
        image = F.normalize(self.encode_images(pictures), dim=1)
        text = F.normalize(self.encode_texts(tokens), dim=1)
        return self.log_scale.exp() * image @ text.T
