"""Labels of image tasks from NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instil.data.images import ArrayData
from instil.data.keypoint_images import KeypointImages
from instil.data.labelled_pixels import DepthImages
from instil.data.masks import masked_arrays
from instil.data.samples import Samples
from instil.data.targets import RealImages

Array = NDArray[np.generic]

TASKS = ("segmentation", "regression", "depth", "pose")
"""Tasks whose labels are not classes of whole images."""


def labelled_arrays(
    task_name: str,
    images: ArrayData,
    values: Array,
    names: Sequence[str] | None,
    area: Array | None = None,
) -> Samples:
    """Combine images with the labels of a task of ``TASKS``.

    Args:
        task_name: name of the task.
        images: the images.
        values: labels.
        names: names of the classes, outputs or keypoints; None for their indices.
        area: areas (N,) of the objects of the task ``pose``, in pixels; None for none.

    Raises:
        ValueError: for labels of another form.
    """
    if task_name == "segmentation":
        return masked_arrays(images, _integers(values), names)
    if task_name == "depth":
        return DepthImages(images, _depths(values))
    if task_name == "pose":
        entries = {} if area is None else {"area": torch.from_numpy(area.astype(np.float32))}
        keypoints = torch.from_numpy(values.astype(np.float32))
        return KeypointImages(images, keypoints, names, entries=entries)
    return RealImages(images, _real(values), names)


def _integers(values: Array) -> Tensor:
    if values.ndim != 3 or values.dtype.kind not in "iub":
        raise ValueError(
            "label: wrong form for segmentation. Expected class indices (N, H, W), got "
            f"{values.dtype} of shape {values.shape}"
        )
    return torch.from_numpy(values.astype(np.int64))


def _depths(values: Array) -> Tensor:
    if values.ndim != 3 or values.dtype.kind != "f":
        raise ValueError(
            "label: depth needs floating-point distances (N, H, W), got "
            f"{values.dtype} of shape {values.shape}"
        )
    return torch.from_numpy(values.astype(np.float32))


def _real(values: Array) -> Tensor:
    if values.ndim not in (1, 2) or values.dtype.kind != "f":
        raise ValueError(
            "label: regression needs floating-point targets (N,) or (N, D), got "
            f"{values.dtype} of shape {values.shape}. Use task: classification for class "
            "indices, or convert integer targets with astype('float32')"
        )
    return torch.from_numpy(values.astype(np.float32))
