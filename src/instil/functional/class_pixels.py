"""Pixels and regions of each class in labelled feature maps."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.functional.directions import l2_normalize, pairwise_dot


def sample_class_pixels(
    vectors: Tensor, in_class: Tensor, uniforms: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Sample pixels of each class from each image, without replacement.

    Args:
        vectors: pixel vectors (N, P, D).
        in_class: mask (N, K, P) of the pixels of each of K classes.
        uniforms: random numbers (N, P) in [0, 1).
        size: maximum number of pixels of a class from one image.

    Returns:
        Vectors (N, K, S, D) with S = min(size, P), and mask (N, K, S) of the sampled pixels; the
        other vectors are arbitrary.

    Example:
        >>> import torch
        >>> in_class = torch.tensor([[[True, False], [False, False]]])
        >>> pixels, exists = sample_class_pixels(torch.eye(2)[None], in_class, torch.rand(1, 2), 1)
        >>> exists
        tensor([[[ True],
                 [False]]])
    """
    # Pixels of other classes get -1 and come after all pixels of the class.
    draws = torch.where(in_class, uniforms[:, None], -1.0)
    drawn, position = draws.topk(min(size, vectors.shape[1]), 2)
    image = torch.arange(len(vectors), device=vectors.device)[:, None, None]
    return vectors[image, position], drawn >= 0


def class_regions(vectors: Tensor, in_class: Tensor) -> tuple[Tensor, Tensor]:
    """Mean directions of the pixels of each class in each image.

    Args:
        vectors: pixel vectors (N, P, D).
        in_class: mask (N, K, P) of the pixels of each of K classes.

    Returns:
        Unit vectors (N, K, D), zero for a class without pixels, and mask (N, K) of the classes
        with pixels.

    Example:
        >>> import torch
        >>> in_class = torch.tensor([[[True, True], [False, False]]])
        >>> class_regions(torch.eye(2)[None], in_class)[0]
        tensor([[[0.7071, 0.7071],
                 [0.0000, 0.0000]]])
    """
    sums = pairwise_dot(in_class.to(vectors.dtype), vectors.mT)
    return l2_normalize(sums), in_class.any(2)


def pixel_labels(batch: Batch, loss: object) -> Tensor:
    """Labels (N, *grid) of a batch, with -100 for invalid pixels or voxels.

    Args:
        batch: the batch of the step.
        loss: loss that needs the labels, for the error message.

    Raises:
        ValueError: if the batch has no labels, or one label per image.
    """
    label: Tensor | None = batch.get("label")
    if label is None or label.ndim < 3:
        got = "no label" if label is None else f"a label of shape {tuple(label.shape)}"
        raise ValueError(
            f"{type(loss).__name__} needs a label for every pixel, (N, H, W) or (N, D, H, W), and "
            f"the batch has {got}"
        )
    valid: Tensor | None = batch.get("valid")
    if valid is None:
        return label
    # ``valid`` has the shape of the samples or of the positions.
    missing = [1] * (label.ndim - valid.ndim)
    return label.masked_fill(~valid.bool().view(*valid.shape, *missing), UNLABELLED)


def labelled_images(label: Tensor) -> Tensor:
    """Weight (N,) of each image: 1 with at least one labelled pixel, else 0.

    Args:
        label: labels (N, *grid), -100 for unlabelled pixels.
    """
    return (label != UNLABELLED).flatten(1).any(1).float()
