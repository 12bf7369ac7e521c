"""Zero-shot classes and retrieval of images and texts with one embedding space."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, to_float32
from instil.tasks.bases.class_prompts import class_means
from instil.tasks.bases.scores import LARGEST_CONFUSION


def zero_shot(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """Return the class whose mean text embedding is closest to each image.

    The mean over the texts of a class is the prompt ensemble of Radford et al. 2021, section 3.1.4.

    Args:
        image: (N, D), of length 1.
        text: (N, D), of length 1.
        label: (N,), the class of each text; -100 for none.

    Returns:
        Class indices (N,); only classes with a text are predicted.
    """
    return similarity_to_classes(image, text, label).argmax(1)


def similarity_to_classes(image: Tensor, text: Tensor, label: Tensor) -> Tensor:
    """Compute the similarity of images with the mean texts of classes.

    Args:
        image: (N, D), of length 1.
        text: (N, D), of length 1.
        label: class of each text (N,); -100 for none.

    Returns:
        (N, C); -inf for a class without a text.
    """
    is_labelled = label != UNLABELLED
    num_classes = int(label.max()) + 1
    means = class_means(text[is_labelled], label[is_labelled], num_classes)
    has_text = torch.bincount(label[is_labelled], minlength=num_classes) > 0
    return (image @ means.T).masked_fill(~has_text, -torch.inf)


def recalls(
    image: Tensor, text: Tensor, text_index: Tensor, picture: Tensor | None = None
) -> dict[str, float]:
    """Compute ``image_recall`` and ``text_recall`` at 1; equal texts, and pictures, count as one.

    Args:
        image: (N, D), of length 1.
        text: (N, D), of length 1.
        text_index: index of each text among the distinct ones (N,).
        picture: index of each image among the distinct ones (N,); None if all differ.
    """
    similarity = image @ text.T
    values: dict[str, float] = {}
    for name, dim in (("image_recall", 0), ("text_recall", 1)):
        closest = similarity.argmax(dim)
        is_hit = text_index[closest] == text_index
        if picture is not None:
            is_hit |= picture[closest] == picture
        values[name] = is_hit.double().mean().item()
    return values


def normalized(embedding: Tensor) -> Tensor:
    """Return embeddings (N, D) in float32, scaled to length 1.

    Raises:
        ValueError: for embeddings that are not finite.
    """
    is_finite = embedding.isfinite().all(-1)
    if not is_finite.all():
        raise ValueError(
            f"{int((~is_finite).sum())} of {len(embedding)} items have embeddings that are not "
            "finite"
        )
    return F.normalize(to_float32(embedding), dim=-1)


def text_indices(ids: Tensor) -> Tensor:
    """Index of each text among the distinct texts."""
    indices: dict[tuple[int, ...], int] = {}
    return torch.tensor([indices.setdefault(tuple(row), len(indices)) for row in ids.tolist()])


def confusion_details(predicted: Tensor, label: Tensor) -> dict[str, Any]:
    """Return the confusion of class indices (N,), empty for too many classes."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    classes = int(torch.stack([predicted, label]).max()) + 1
    if not 1 < classes <= LARGEST_CONFUSION:
        return {}
    return {"confusion": multiclass_confusion_matrix(predicted, label, classes).tolist()}
