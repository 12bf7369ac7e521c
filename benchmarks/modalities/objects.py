"""Data of the rows on points, views, scenes and boxes, from real objects, drawings and digits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Doc

from instil.core import UNLABELLED
from instil.data.label_kinds import BoxData
from instil.data.object_scenes import SceneObjects, object_scenes
from instil.data.samples import TensorData
from instil.data.splits import Splits, balanced_order

Arrays = Mapping[str, NDArray[np.generic]]
PathOption = Annotated[str, Doc("NumPy archive")]
TrainOption = Annotated[
    int, Ge(0), Doc("number of training samples, balanced over the classes; 0: all")
]
SUBSET_SEED = 0
"""Seed of the order in which training samples are kept."""
DIGITS = (slice(7000), slice(7000, 8000), slice(8000, None))
"""Digits of the train, validation and test scenes."""
AZIMUTH, ELEVATION = math.radians(45), math.radians(35)
"""Direction of the eye of the oblique depth image of ``kicad_parts.npz``."""
DEPTH_TOLERANCE = 10
"""Difference to the depth image, in levels of 8 bits, up to which a point is visible."""
HIDDEN = 2.0
"""Place of a point that the image does not show; places in the image are in [-1, 1]."""
INK = 0.3
"""Smallest intensity of a pixel that belongs to a digit."""


def clouds(path: PathOption, train: TrainOption = 0) -> Splits:
    """Points (P, 3) of objects: ``points.npz`` or ``kicad_parts.npz``."""
    arrays = _read(path)
    points = torch.from_numpy(arrays["points"].astype(np.float32))
    return _splits(arrays, {"points": points}, "label", "classes", {"channels": 3}, train)


def part_views(path: PathOption, train: TrainOption = 0) -> Splits:
    """Depth images (4, 1, 32, 32) of electronic parts of 23 kinds, from ``kicad_parts.npz``."""
    arrays = _read(path)
    views = torch.from_numpy(arrays["depth"].astype(np.float32) / 255)[:, :, None]
    facts = {"channels": 1, "size": views.shape[-1]}
    return _splits(arrays, {"views": views}, "label", "classes", facts, train)


def parts_with_image(path: PathOption, train: TrainOption = 0) -> Splits:
    """Points of electronic parts with an oblique depth image, from ``kicad_parts.npz``.

    Samples have ``points`` (512, 3), ``image`` (1, 32, 32) and ``pixels`` (512, 2): the place of
    each point in the image, right and down, or ``HIDDEN`` where another point is in front of it.
    """
    arrays = _read(path)
    points = torch.from_numpy(arrays["points"].astype(np.float32))
    depth = torch.from_numpy(arrays["depth"][:, 3])
    image = depth[:, None].float() / 255
    tensors = {"points": points, "image": image, "pixels": _oblique_pixels(points, depth)}
    return _splits(arrays, tensors, "label", "classes", {"channels": 3}, train)


def _oblique_pixels(points: Tensor, depth: Tensor) -> Tensor:
    """Places (N, P, 2) of points (N, P, 3) in depth images (N, S, S), whose 0 is empty."""
    sine, cosine = math.sin(AZIMUTH), math.cos(AZIMUTH)
    height, distance = math.sin(ELEVATION), math.cos(ELEVATION)
    right = torch.tensor([-sine, cosine, 0.0])
    up = torch.tensor([-cosine * height, -sine * height, distance])
    eye = torch.tensor([cosine * distance, sine * distance, height])
    across, down, near = points @ right, -(points @ up), points @ eye
    size = depth.shape[-1]
    column = ((across + 1) * size / 2).long().clamp(0, size - 1)
    row = size - 1 - ((1 - down) * size / 2).long().clamp(0, size - 1)
    front = depth.flatten(1).gather(1, row * size + column).float()
    is_visible = (128 + 126 * near >= front - DEPTH_TOLERANCE) & (front > 0)
    pixels = torch.stack([across, down], 2)
    return torch.where(is_visible[..., None], pixels, HIDDEN)


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


def scenes(
    path: PathOption,
    count: Annotated[int, Ge(1), Doc("number of training scenes")] = 600,
    size: Annotated[int, Ge(15), Doc("height and width of a scene, in pixels")] = 24,
) -> Splits:
    """Two handwritten digits (14, 14) of ``mnist10k.npz`` on a noisy background, by pixel.

    The class of a pixel is ``background`` or the digit, and -100 where the digits overlap. The
    splits use different digits.
    """
    arrays = _read(path)
    digits = torch.from_numpy(arrays["images"].astype(np.float32) / 255)
    digits = F.avg_pool2d(digits[:, None], 2)[:, 0]
    label = torch.from_numpy(arrays["labels"].astype(np.int64))
    names = ("background", *(str(digit) for digit in range(10)))
    parts = [
        _scenes(digits[rows], label[rows], num_scenes, size, seed, names)
        for seed, (rows, num_scenes) in enumerate(zip(DIGITS, (count, 150, 300), strict=True))
    ]
    return Splits(*parts, names, "single")


def _scenes(
    digits: Tensor, label: Tensor, count: int, size: int, seed: int, names: Sequence[str]
) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 * torch.rand(count, 1, size, size, generator=generator)
    mask = torch.zeros(count, size, size, dtype=torch.int64)
    chosen = torch.randint(len(digits), (count, 2), generator=generator)
    corners = torch.randint(size - 13, (count, 2, 2), generator=generator)
    for scene in range(count):
        for row, (top, left) in zip(chosen[scene].tolist(), corners[scene].tolist(), strict=True):
            window = (scene, slice(top, top + 14), slice(left, left + 14))
            ink = digits[row] > INK
            is_free = mask[window] == 0
            mask[window] = torch.where(
                ink, torch.where(is_free, label[row] + 1, UNLABELLED), mask[window]
            )
            image[:, 0][window] = image[:, 0][window].maximum(digits[row])
    facts = {"channels": 1, "size": size}
    return TensorData({"image": image, "valid": mask != UNLABELLED}, mask, names, facts)


def digit_scene_boxes(
    path: PathOption,
    count: Annotated[int, Ge(1), Doc("number of training scenes")] = 400,
    size: Annotated[int, Ge(32), Doc("height and width of a scene, in pixels")] = 64,
) -> Splits:
    """One to four handwritten digits of ``mnist10k.npz`` on a noisy background, with boxes."""
    arrays = _read(path)
    image = torch.from_numpy(arrays["images"].astype(np.float32) / 255)[:, None]
    label = torch.from_numpy(arrays["labels"].astype(np.int64))
    names = tuple(str(digit) for digit in range(10))
    parts = []
    for seed, (rows, num_scenes) in enumerate(zip(DIGITS, (count, 60, 150), strict=True)):
        generator = torch.Generator().manual_seed(seed)
        background = 0.4 * torch.rand(num_scenes, 1, size, size, generator=generator)
        objects = SceneObjects(torch.ones_like(image[rows]), image[rows], label[rows], names)
        parts.append(object_scenes(objects, background, (14, 28), 4, generator))
    return Splits(*parts, names, "boxes")


def emoji_boxes(
    path: PathOption,
    groups: Annotated[list[str], Doc("groups of emoji, the classes")],
    vendors: Annotated[list[str], Doc("sets of drawings")],
    count: Annotated[int, Ge(1), Doc("number of training scenes")] = 400,
    size: Annotated[int, Ge(32), Doc("height and width of a scene, in pixels")] = 64,
) -> Splits:
    """One to four emoji of ``emoji.npz`` on backgrounds of changing colours, with boxes.

    The splits use different emoji.
    """
    arrays = _read(path)
    parts: list[BoxData] = []
    for split, num_scenes in enumerate((count, 60, 150)):
        objects = _emoji(arrays, groups, vendors, split)
        generator = torch.Generator().manual_seed(split)
        background = _backgrounds(num_scenes, size, generator)
        parts.append(object_scenes(objects, background, (16, 30), 4, generator))
    return Splits(*parts, tuple(groups), "boxes")


def emoji_masks(
    path: PathOption,
    groups: Annotated[list[str], Doc("groups of emoji, the classes")],
    vendors: Annotated[list[str], Doc("sets of drawings")],
    count: Annotated[int, Ge(1), Doc("number of training scenes")] = 400,
    size: Annotated[int, Ge(32), Doc("height and width of a scene, in pixels")] = 32,
) -> Splits:
    """One to three emoji of ``emoji.npz`` on backgrounds of changing colours, by pixel.

    The class of a pixel is ``background`` or the group of the emoji in front. The splits use
    different emoji.
    """
    arrays = _read(path)
    names = ("background", *groups)
    parts: list[TensorData] = []
    for split, num_scenes in enumerate((count, 100, 200)):
        objects = _emoji(arrays, groups, vendors, split)
        generator = torch.Generator().manual_seed(split)
        image = _backgrounds(num_scenes, size, generator)
        mask = torch.zeros(num_scenes, size, size, dtype=torch.int64)
        for scene, label in zip(image, mask, strict=True):
            _draw_emoji(scene, label, objects, generator)
        facts = {"channels": 3, "size": size}
        inputs = {"image": image, "valid": torch.ones_like(mask, dtype=torch.bool)}
        parts.append(TensorData(inputs, mask, names, facts))
    return Splits(*parts, names, "single")


def _emoji(
    arrays: Arrays, groups: Sequence[str], vendors: Sequence[str], split: int
) -> SceneObjects:
    """Drawings of a split; classes are the groups."""
    chosen_vendors = [arrays["vendors"].tolist().index(vendor) for vendor in vendors]
    group_ids = [arrays["groups"].tolist().index(group) for group in groups]
    rows = np.flatnonzero((arrays["split"] == split) & np.isin(arrays["group"], group_ids))
    pictures = arrays["images"][rows][:, chosen_vendors].astype(np.float32) / 255
    image = torch.from_numpy(pictures).flatten(0, 1).movedim(-1, 1).contiguous()
    label = torch.tensor([group_ids.index(group) for group in arrays["group"][rows]])
    label = label.repeat_interleave(len(vendors))
    return SceneObjects(image, _opacity(image), label, tuple(groups))


def _draw_emoji(
    scene: Tensor, label: Tensor, objects: SceneObjects, generator: torch.Generator
) -> None:
    """Draw one to three emoji on a scene (3, H, W) and its classes (H, W), in place."""
    for _ in range(int(torch.randint(1, 4, (), generator=generator))):
        row = int(torch.randint(len(objects.label), (), generator=generator))
        side = int(torch.randint(12, 21, (), generator=generator))
        top, left = torch.randint(label.shape[0] - side + 1, (2,), generator=generator).tolist()
        picture, opacity = (
            F.interpolate(value[row, None], (side, side), mode="bilinear", align_corners=False)[0]
            for value in (objects.image, objects.opacity)
        )
        window = (slice(top, top + side), slice(left, left + side))
        scene[:, window[0], window[1]].lerp_(picture, opacity)
        label[window][opacity[0] > 0.5] = int(objects.label[row]) + 1


def _opacity(image: Tensor) -> Tensor:
    """1 for the drawing, 0 for the white around it that reaches the border (N, 1, h, w)."""
    from scipy import ndimage

    opacity = torch.ones_like(image[:, :1])
    for row, white in enumerate((image > 0.97).all(1).numpy()):
        regions, _ = ndimage.label(white)
        border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
        outside = np.isin(regions, np.setdiff1d(border, 0))
        opacity[row, 0] = torch.from_numpy(~outside).float()
    return opacity


def _backgrounds(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth colours with noise and a few rectangles (count, 3, size, size)."""
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    image = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)
    image = image + 0.1 * torch.rand(count, 3, size, size, generator=generator)
    for scene in image:
        for _ in range(3):
            top, left, height, width = torch.randint(4, size // 2, (4,), generator=generator)
            colour = torch.rand(3, 1, 1, generator=generator)
            scene[:, top : top + height, left : left + width] = colour
    return image.clamp(0, 1)


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
