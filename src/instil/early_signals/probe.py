"""Linear probe of the features of an untrained network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RIDGE = 0.01
"""Penalty as a share of the mean squared feature."""


def linear_probe_accuracy(
    train_features: Tensor, train_label: Tensor, features: Tensor, label: Tensor
) -> float:
    """Accuracy of a ridge classifier on fixed features, in closed form.

    Args:
        train_features: (N, D).
        train_label: class indices (N,).
        features: (M, D).
        label: class indices (M,).

    Example:
        >>> import torch
        >>> points = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> linear_probe_accuracy(points, torch.tensor([0, 0, 1, 1]), points, torch.tensor([0] * 4))
        0.5
    """
    mean = train_features.double().mean(0)
    centred_features = train_features.double() - mean
    scale = centred_features.square().mean().sqrt().clamp_min(1e-12)
    inputs = centred_features / scale
    classes = F.one_hot(train_label, int(torch.cat([train_label, label]).max()) + 1).double()
    offsets = classes.mean(0)
    penalty = RIDGE * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    gram = inputs.T @ inputs + penalty.to(inputs.device)
    weights = torch.linalg.solve(gram, inputs.T @ (classes - offsets))
    scores = (features.double() - mean) / scale @ weights + offsets
    return float((scores.argmax(-1) == label).double().mean())
