"""How good are the pictures? The Frechet distance over the features of the lab's own classifier.

Two sets of pictures are compared by mean and covariance of the 64 features that week 3's CNN
computes just before its last layer (Heusel et al. 2017 use 2048 features of Inception, which was
not trained on digits). Three things are needed to give such a number a meaning:
- every feature is standardised with the training set's mean and deviation, so that the number does
  not depend on the scale of the classifier's features;
- it is reported with the same distance between real pictures: training pictures against test
  pictures, at the same count (the mean of five draws, since one draw alone varies by a fifth);
- the count is stated. With few samples the distance is biased upwards, for real pictures as well.
"""

import numpy as np
import torch
from torch import Tensor

from labkit import Run, UsageError
from labkit.data import ImageData, epoch_order
from labkit.learning.metrics import frechet_distance, gaussian_statistics
from pytorch_mastery.model import CNN, load_classifier

DRAWS = 5
"""Draws of real training pictures over which the real-against-real distance is averaged."""


class FeatureDistance:
    """Measures sets of pictures against the test set. `real` is the distance of real pictures."""

    def __init__(self, classifier: CNN, train: Tensor, test: Tensor, count: int) -> None:
        """`train`, `test` are uint8 (N, C, H, W); `count` is the size of the sets compared."""
        self.classifier = classifier
        features = self.features(train)
        self.mean, self.deviation = features.mean(axis=0), features.std(axis=0)
        self.reference = gaussian_statistics(self.standardised(self.features(test[:count])))
        draws = [features[epoch_order(len(train), i, seed=0)[:count]] for i in range(DRAWS)]
        self.real = float(np.mean([self._distance(draw) for draw in draws]))

    def __call__(self, pictures: Tensor) -> float:
        """Frechet distance of pictures, uint8 (N, C, H, W), from the test set."""
        return self._distance(self.features(pictures))

    def _distance(self, features: np.ndarray) -> float:
        return frechet_distance(*gaussian_statistics(self.standardised(features)), *self.reference)

    def standardised(self, features: np.ndarray) -> np.ndarray:
        """Features (N, 64) in deviations of the training set from its mean."""
        standard: np.ndarray = (features - self.mean) / self.deviation
        return standard

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> np.ndarray:
        """The classifier's features of uint8 (N, C, H, W), float64 (N, 64)."""
        parts = [self.classifier.features(p.float() / 255) for p in pictures.split(500)]
        features: np.ndarray = torch.cat(parts).double().cpu().numpy()
        return features


def judge(run: Run, data: ImageData) -> CNN:
    """Week 3's classifier, whose features measure the samples; trained first if missing.

    Raises UsageError when its folder cannot be opened, or when it is for other pictures.
    """
    channels, classes = data.train.x.shape[1], len(data.classes)
    folder = run.artifact("pytorch_mastery", data=data.name)
    if folder is None:  # size smoke: features of an untrained network
        untrained = CNN(channels, classes, 8, data.mean, data.std)
        return untrained.to(run.device).eval()
    classifier = load_classifier(folder, run.device)
    if (found := (classifier.shape["channels"], classifier.shape["classes"])) != (
        channels,
        classes,
    ):
        raise UsageError(
            f"{folder} is a classifier of {found[0]} channels and {found[1]} classes, and "
            f"{data.name} has {channels} and {classes}. Remove it, and it is made anew"
        )
    return classifier
