"""Number of training labels of each class, for objectives that need it."""

from __future__ import annotations

import torch

from instil.capabilities import CountsLabels
from instil.core import UNLABELLED, Objectives, Scheme
from instil.data.samples import Samples
from instil.recipe.errors import RecipeError


def set_label_counts(scheme: Scheme, samples: Samples) -> None:
    """Count the labels of the training samples for the objectives of a scheme that need it.

    Args:
        scheme: the scheme.
        samples: training samples, with the labels that the student sees.

    Raises:
        RecipeError: if the labels are not classes.
    """
    for part in scheme.modules():
        for name, objective in part.named() if isinstance(part, Objectives) else ():
            if isinstance(objective, CountsLabels) and objective.needs_label_counts:
                objective.set_label_counts(_counts(samples, f"objectives.{name}.class_weights"))


def _counts(samples: Samples, path: str) -> torch.Tensor:
    label = getattr(samples, "label", None)
    if label is None or samples.kind not in ("single", "binary"):
        raise RecipeError(
            f"{path}: balanced needs one class per item in the training data. Expected a list of "
            "weights, or null."
        )
    label = label[label != UNLABELLED].flatten().long()
    if not len(label):
        raise RecipeError(f"{path}: balanced needs training labels, and the data have none.")
    num_classes = max(len(samples.classes), 2)
    return torch.bincount(label, minlength=num_classes)
