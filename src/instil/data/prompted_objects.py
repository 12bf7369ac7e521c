"""Objects of images, each with a box and a point as prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.samples import TensorData
from instil.functional.prompts import box_of, sample_points

CLASSES = ("background", "object")


def prompted_objects(
    image: Tensor, instances: Tensor, seed: int = 0, smallest: int = 1
) -> TensorData:
    """Build the samples of promptable segmentation: one for each object of each image.

    Args:
        image: (M, C, H, W), floating point in [0, 1].
        instances: number of the object of each pixel (M, H, W); 0 for the background.
        seed: seed of the points, one pixel of each object.
        smallest: smallest number of pixels of an object; smaller ones are left out.

    Returns:
        Samples with ``image``, ``box`` (N, 4), ``points`` (N, 1, 2), ``point_labels`` (N, 1), and
        the mask (N, H, W) as label.

    Raises:
        ValueError: if the shapes differ, or there is no object.
    """
    if image.ndim != 4 or instances.shape != (len(image), *image.shape[2:]):
        raise ValueError(
            f"instances have the shape {tuple(instances.shape)}. Expected (N, H, W) of the images "
            f"{tuple(image.shape)}"
        )
    rows, masks = [], []
    for row, numbers in enumerate(instances):
        for value in numbers.unique().tolist():
            mask = numbers == value
            if value > 0 and int(mask.sum()) >= smallest:
                rows.append(row)
                masks.append(mask)
    if not masks:
        raise ValueError("no image has an object. Expected instance numbers above 0")
    mask = torch.stack(masks)
    generator = torch.Generator().manual_seed(seed)
    point, _ = sample_points(mask, torch.rand(len(mask), generator=generator))
    tensors = {
        "image": image[torch.tensor(rows)],
        "box": box_of(mask),
        "points": point[:, None],
        "point_labels": torch.ones(len(mask), 1, dtype=torch.int64),
    }
    height, width = image.shape[2:]
    size = height if height == width else (height, width)
    return TensorData(tensors, mask.long(), CLASSES, {"channels": image.shape[1], "size": size})
