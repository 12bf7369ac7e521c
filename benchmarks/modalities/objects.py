"""Data of the rows on points, views and scenes, from real objects, drawings and digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Doc

from instil.data.samples import TensorData
from instil.data.splits import Splits, balanced_order

Arrays = Mapping[str, NDArray[np.generic]]
PathOption = Annotated[str, Doc("NumPy archive")]
TrainOption = Annotated[
    int, Ge(0), Doc("number of training samples, balanced over the classes; 0: all")
]
SUBSET_SEED = 0
"""Seed of the order in which training samples are kept."""


def part_points(path: PathOption, train: TrainOption = 0) -> Splits:
    """Points (512, 3) of electronic parts of 23 kinds, from ``kicad_parts.npz``."""
    arrays = _read(path)
    points = torch.from_numpy(arrays["points"].astype(np.float32))
    return _splits(arrays, {"points": points}, "label", "classes", {"channels": 3}, train)


def part_views(path: PathOption, train: TrainOption = 0) -> Splits:
    """Depth images (4, 1, 32, 32) of electronic parts of 23 kinds, from ``kicad_parts.npz``."""
    arrays = _read(path)
    views = torch.from_numpy(arrays["depth"].astype(np.float32) / 255)[:, :, None]
    facts = {"channels": 1, "size": views.shape[-1]}
    return _splits(arrays, {"views": views}, "label", "classes", facts, train)


def emoji_views(
    path: PathOption,
    vendors: Annotated[list[str], Doc("sets of drawings, in this order")],
    label: Annotated[str, Doc("group or subgroup")] = "group",
    train: TrainOption = 0,
) -> Splits:
    """Drawings (V, 3, 32, 32) of one emoji by several vendors, from ``emoji.npz``."""
    arrays = _read(path)
    names = arrays["vendors"].tolist()
    images = arrays["images"][:, [names.index(vendor) for vendor in vendors]]
    views = torch.from_numpy(images.astype(np.float32) / 255).movedim(-1, 2).contiguous()
    facts = {"channels": 3, "size": views.shape[-1]}
    return _splits(arrays, {"views": views}, label, f"{label}s", facts, train)


def _read(path: str) -> dict[str, NDArray[np.generic]]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _splits(
    arrays: Arrays,
    tensors: Mapping[str, Tensor],
    label: str,
    classes: str,
    facts: Mapping[str, int],
    train: int,
) -> Splits:
    """Splits of the archive, with at most ``train`` training samples if it is not 0."""
    target = torch.from_numpy(arrays[label].astype(np.int64))
    names = [str(name) for name in arrays[classes].tolist()]
    split = torch.from_numpy(arrays["split"].astype(np.int64))
    parts = []
    for index in range(3):
        rows = (split == index).nonzero().flatten()
        if index == 0 and train:
            rows = rows[balanced_order(target[rows], SUBSET_SEED)[:train]]
        inputs = {key: value[rows] for key, value in tensors.items()}
        parts.append(TensorData(inputs, target[rows], names, facts))
    return Splits(*parts, tuple(names), "single")
