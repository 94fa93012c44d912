"""The features in which images are compared, chosen by name. They decide what a metric can see.

    classifier   week 3's network, trained on the data in question: 64 features, standardised
    inception    the Inception-v3 of published FIDs (2,048 features), in torch-fidelity's port
    clip         CLIP's image embedding (Radford et al. 2021), from the hub or a folder
    dinov2       DINOv2's class token (Oquab et al. 2023), the same

Numbers of different extractors cannot be compared, so the record names the one that was used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labkit import Run, UsageError
from labkit.data import ImageData
from labkit.learning.weights import opening
from labkit.show.console import warn
from pytorch_mastery import CNN, judge

BATCH = 250
"""Pictures in a forward pass."""
HUB = {"clip": "openai/clip-vit-base-patch32", "dinov2": "facebook/dinov2-base"}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Seen(NamedTuple):
    """What an extractor says about N pictures."""

    features: np.ndarray
    """float64 (N, D)"""
    probabilities: np.ndarray | None
    """float64 (N, K) of a classifier's K classes; None where the extractor has none."""


@dataclass(frozen=True)
class Extractor:
    """Pictures to features."""

    name: str
    """As in a record: which network, and whose weights."""
    dimensions: int
    """D."""
    embed: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    """uint8 (B, C, H, W) -> features (B, D), and logits (B, K) or None."""
    device: torch.device | str = "cpu"

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Seen:
        """Features of uint8 (N, C, H, W)."""
        features, probabilities = [], []
        for part in pictures.split(BATCH):
            found, logits = self.embed(part.to(self.device))
            features.append(found.double().cpu())
            if logits is not None:
                probabilities.append(logits.double().softmax(dim=1).cpu())
        return Seen(
            torch.cat(features).numpy(),
            torch.cat(probabilities).numpy() if probabilities else None,
        )


def of_classifier(
    classifier: CNN, name: str, device: torch.device | str = "cpu", mean: Any = 0.0, std: Any = 1.0
) -> Extractor:
    """The lab's own classifier; its features minus `mean`, over `std`, (D,) each."""
    shift, scale = torch.as_tensor(mean, device=device), torch.as_tensor(std, device=device)

    def embed(pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        features = classifier.features(pictures.float() / 255)
        return (features.double() - shift) / scale, classifier.head(F.relu(features))

    return Extractor(name, classifier.head.in_features, embed, device)


def coloured(pictures: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) as it is; grey ones (B, 1, H, W) with their one channel three times."""
    return pictures.expand(-1, 3, -1, -1)


def prepared(pictures: Tensor, side: int, mean: Any, std: Any) -> Tensor:
    """uint8 (B, C, H, W) -> standardised float (B, 3, side, side), resized with antialiasing."""
    x = coloured(pictures).float() / 255
    x = F.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)
    shift, scale = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (mean, std))
    return (x.clamp(0, 1) - shift) / scale


def inception(weights: str | None, device: torch.device | str) -> Extractor:
    """Inception-v3 with the weights of the papers' FIDs, as torch-fidelity has it.

    Raises UsageError when that package is missing or its weights can be neither read nor fetched.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UsageError(
            "extractor=inception needs torch-fidelity, which has the weights of published FIDs: "
            "pip install torch-fidelity==0.4.0. Or take extractor=dinov2, clip or classifier"
        ) from error
    fix = (
        "Without a network give a copy of its weights, weights=FILE; or take extractor=dinov2, "
        "clip or classifier"
    )
    with opening(weights or "torch-fidelity's cache", "Inception-v3", fix):
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"],
            feature_extractor_weights_path=weights,
        )  # fmt: skip
        network = network.to(device).eval().requires_grad_(False)

    def embed(pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = network(coloured(pictures))
        return features, logits

    return Extractor("Inception-v3 (torch-fidelity, weights of 2015-12-05)", 2048, embed, device)


def from_hub(kind: str, weights: str | None, device: torch.device | str) -> Extractor:
    """CLIP or DINOv2 from the hub, or from a folder in the hub's format.

    Raises UsageError when it can be neither found nor downloaded.
    """
    place = weights or HUB[kind]
    fix = "Give a folder with a copy, weights=FOLDER, or take extractor=classifier"
    network: Any
    with opening(place, f"{kind} model", fix):
        if kind == "clip":
            from transformers import CLIPVisionModelWithProjection

            network = CLIPVisionModelWithProjection.from_pretrained(place, dtype=torch.float32)
            dimensions, mean, std = network.config.projection_dim, CLIP_MEAN, CLIP_STD
        else:
            from transformers import Dinov2Model

            network = Dinov2Model.from_pretrained(place, dtype=torch.float32)
            dimensions, mean, std = network.config.hidden_size, IMAGENET_MEAN, IMAGENET_STD
        network = network.to(device).eval().requires_grad_(False)
    side = 224 if network.config.image_size >= 224 else network.config.image_size

    def embed(pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        out = network(pixel_values=prepared(pictures, side, mean, std))
        return (out.image_embeds if kind == "clip" else out.pooler_output), None

    return Extractor(f"{kind} ({place})", dimensions, embed, device)


def standardised(
    classifier: CNN, data: ImageData, device: torch.device | str, what: str = "trained"
) -> tuple[Extractor, np.ndarray]:
    """The classifier as an extractor whose features have mean 0 and deviation 1 over the training
    pictures; and those pictures' features, (N, D).
    """
    features = of_classifier(classifier, "", device)(data.train.tensors()[0]).features
    mean, std = features.mean(axis=0), features.std(axis=0)
    name = f"classifier of week 3, {what} on {data.name}"
    return of_classifier(classifier, name, device, mean, std), (features - mean) / std


def of_data(run: Run, data: ImageData) -> tuple[Extractor, np.ndarray]:
    """Week 3's classifier of `data`, trained first if missing.

    At size smoke the network is untrained: random features, which see large differences only.
    """
    what = "not trained" if run.size == "smoke" else "trained"
    return standardised(judge(run, data), data, run.device, what)


def chosen(
    name: str, weights: str | None, run: Run, data: ImageData
) -> tuple[Extractor, np.ndarray]:
    """The extractor that `extractor=name` means, and the features of the training pictures (N, D).

    auto is Inception if it can be had, else the lab's classifier, with a warning. Raises UsageError
    for an extractor that was named and cannot be had.
    """
    if name == "classifier":
        return of_data(run, data)
    try:
        extractor = pretrained("inception" if name == "auto" else name, weights, run.device)
    except UsageError as error:
        if name != "auto":
            raise
        warn(f"{error}\n         Using week 3's classifier: the numbers are not published FIDs.")
        return of_data(run, data)
    return extractor, extractor(data.train.tensors()[0]).features


def pretrained(name: str, weights: str | None, device: torch.device | str) -> Extractor:
    """The extractor `inception`, `clip` or `dinov2`. Raises UsageError when it cannot be had."""
    return inception(weights, device) if name == "inception" else from_hub(name, weights, device)
