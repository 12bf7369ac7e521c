"""Data source of the row that distils depth images of electronic parts to their points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from instil.data.samples import TensorData
from instil.data.splits import Splits

SPLITS = ("train", "validation", "test")


def parts(folder: str, first: float = 0.0, last: float = 1.0, points: int = 64) -> Splits:
    """Points and depth images of electronic parts.

    Samples have ``points`` (P, 3), ``views``
    (4, 32, 32), four depth images, and ``view`` (1, 32, 32), the oblique one.

    Args:
        folder: folder of ``kicad_parts.npz``.
        first: start of the training parts, as a share of them.
        last: end of the training parts.
        points: number of points of a part.

    Returns:
        Train, validation and test data.
    """
    with np.load(Path(folder) / "kicad_parts.npz") as file:
        cloud, depth, label, split, classes = (
            file[key] for key in ("points", "depth", "label", "split", "classes")
        )
    names = tuple(map(str, classes))
    parts_of_split = {}
    for value, name in enumerate(SPLITS):
        rows = np.random.default_rng(0).permutation(np.flatnonzero(split == value))
        if name == "train":
            rows = rows[int(first * len(rows)) : int(last * len(rows))]
        views = torch.from_numpy(depth[rows]).float() / 255
        tensors = {
            "points": torch.from_numpy(cloud[rows, :points].astype(np.float32)),
            "views": views,
            "view": views[:, 3:].contiguous(),
        }
        facts = {"channels": 3}
        target = torch.from_numpy(label[rows])
        parts_of_split[name] = TensorData(tensors, target, names, facts)
    return Splits(*parts_of_split.values(), names, "single")
