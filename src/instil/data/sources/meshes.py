"""Source ``meshes``: points on the surfaces of triangle meshes, in one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from typing_extensions import Doc

from instil.data.mesh_files import SUFFIXES, read_mesh
from instil.data.paths import located
from instil.data.samples import Samples, TensorData
from instil.data.splits import Splits, TestOption, ValidationOption, splits

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
"""Split of each name of a folder between the class and its files."""


def meshes(
    path: Annotated[str, Doc("folder, relative to the recipe or to the working directory")],
    points: Annotated[int, Ge(1), Doc("number of points of a mesh")] = 1024,
    normals: Annotated[
        bool, Doc("whether the normal of its triangle is in columns 3 to 5 of a point")
    ] = False,
    validation: ValidationOption = 0.15,
    test: TestOption = 0.15,
    base: Path = Path(),
) -> Splits:
    """Points of meshes in OFF or OBJ files, sampled uniformly by area.

    Paths are ``PATH/class/train/mesh.off``, as in ModelNet, with the folders ``validation`` (or
    ``val``) and ``test`` next to ``train``, or ``PATH/class/mesh.off`` without splits. Classes are
    the names of the folders in alphabetical order. The points of a mesh are sampled once, by a
    seed that depends on its path in the folder. Their mean is 0 and the largest length is 1. All
    points are in memory.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data with ``points`` (N, P, 3), or (N, P, 6) with normals.

    Raises:
        ValueError: for a missing folder, a class without meshes, and a damaged file.
    """
    root = located(path, base)
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if not classes:
        raise ValueError(
            f"path: {root.resolve()} has no folders. Expected one folder per class with its meshes"
        )
    clouds: dict[str, list[NDArray[np.float32]]] = {}
    labels: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        files = sorted(file for file in (root / name).rglob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"path: {root / name} has no meshes. Expected OFF or OBJ files")
        for file in files:
            split = _split_of(file, root / name)
            seed = int.from_bytes(file.relative_to(root).as_posix().encode(), "little")
            clouds.setdefault(split, []).append(_cloud(file, points, normals, seed))
            labels.setdefault(split, []).append(index)
    channels = {"channels": 6 if normals else 3}
    parts: dict[str, Samples] = {}
    for split, rows in clouds.items():
        xyz = torch.from_numpy(np.stack(rows))
        parts[split] = TensorData({"points": xyz}, torch.tensor(labels[split]), classes, channels)
    return splits(parts, validation, test)


def _split_of(file: Path, folder: Path) -> str:
    """Split of a file by the first folder below its class; ``train`` without one."""
    first = file.relative_to(folder).parts[0]
    if first == file.name:
        return "train"
    if first not in SPLIT_FOLDERS:
        raise ValueError(
            f"{folder / first}: unknown folder in a class. Expected {', '.join(SPLIT_FOLDERS)}"
        )
    return SPLIT_FOLDERS[first]


def _cloud(file: Path, num_points: int, normals: bool, seed: int) -> NDArray[np.float32]:
    """Points (P, 3 or 6) of a mesh, centred and scaled."""
    vertices, triangles = read_mesh(file)
    xyz, directions = sample_surface(vertices, triangles, num_points, seed)
    if xyz is None:
        raise ValueError(f"{file}: all triangles have the area 0. Remove the file")
    xyz = xyz - xyz.mean(0)
    xyz = xyz / max(float(np.linalg.norm(xyz, axis=1).max()), 1e-12)
    cloud = np.concatenate([xyz, directions], 1) if normals else xyz
    return cloud.astype(np.float32)


def sample_surface(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], num_points: int, seed: int
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """Sample points uniformly by area from the triangles of a mesh.

    Args:
        vertices: (V, 3).
        triangles: indices of vertices (T, 3).
        num_points: number P of points.
        seed: seed of the sample.

    Returns:
        Points (P, 3), None for a mesh without area, and the unit normals (P, 3) of their triangles.
    """
    generator = np.random.default_rng(seed)
    first, second, third = (vertices[triangles[:, corner]] for corner in range(3))
    cross = np.cross(second - first, third - first)
    area = np.linalg.norm(cross, axis=1)
    if not area.sum() > 0:
        return None, cross
    chosen = generator.choice(len(triangles), num_points, p=area / area.sum())
    # The square root makes the density uniform in the triangle (Osada et al. 2002).
    along = np.sqrt(generator.random((num_points, 1)))
    across = generator.random((num_points, 1))
    xyz = (
        (1 - along) * first[chosen]
        + along * (1 - across) * second[chosen]
        + along * across * third[chosen]
    )
    return xyz, cross[chosen] / area[chosen, None]
