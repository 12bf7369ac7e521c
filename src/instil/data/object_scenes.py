"""Scenes of several objects at random positions, with their boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.data.label_kinds import BoxData

ATTEMPTS = 20
"""Number of positions that are tried for an object without overlap; then it is left out."""
OPAQUE = 0.3
"""Smallest opacity of a pixel inside the box of an object."""


@dataclass(frozen=True)
class SceneObjects:
    """Pictures of single objects.

    Attributes:
        image: (N, C, h, w), in [0, 1].
        opacity: (N, 1, h, w), in [0, 1]; 0 shows the background.
        label: class indices (N,).
        classes: class names.
    """

    image: Tensor
    opacity: Tensor
    label: Tensor
    classes: tuple[str, ...]


def object_scenes(
    objects: SceneObjects,
    background: Tensor,
    sides: tuple[int, int],
    most: int,
    generator: torch.Generator,
) -> BoxData:
    """Paste objects on backgrounds; boxes do not overlap.

    Args:
        objects: pictures of objects, which are resized.
        background: (scenes, C, H, W), in [0, 1].
        sides: smallest and largest side of an object, in pixels.
        most: largest number of objects of a scene; the smallest is 1.
        generator: source of all draws.

    Returns:
        The scenes, with the boxes of the opaque pixels.
    """
    image = background.clone()
    boxes: list[Tensor] = []
    labels: list[Tensor] = []
    for scene in image:
        scene_boxes: list[Tensor] = []
        rows: list[int] = []
        # The order of the draws decides the data of every seed.
        for _ in range(_draw(1, most, generator)):
            row = _draw(0, len(objects.label) - 1, generator)
            side = _draw(*sides, generator)
            box = _paste(scene, objects, row, side, scene_boxes, generator)
            if box is not None:
                scene_boxes.append(box)
                rows.append(row)
        boxes.append(torch.stack(scene_boxes) if scene_boxes else torch.zeros(0, 4))
        labels.append(objects.label[rows])
    channels, height, width = image.shape[1:]
    facts = {"channels": channels, "size": height if height == width else (height, width)}
    return BoxData({"image": image}, boxes, labels, objects.classes, facts)


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    """Uniform integer from ``low`` to ``high``."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _paste(
    scene: Tensor,
    objects: SceneObjects,
    row: int,
    side: int,
    others: list[Tensor],
    generator: torch.Generator,
) -> Tensor | None:
    """Draw an object into a scene, in place, and return its box; None if there is no room."""
    picture, opacity = (
        F.interpolate(part[row : row + 1], (side, side), mode="bilinear", antialias=True)[0]
        for part in (objects.image, objects.opacity)
    )
    rows, columns = (opacity[0] >= OPAQUE).nonzero().T
    edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    for _ in range(ATTEMPTS):
        top = _draw(0, scene.shape[1] - side, generator)
        left = _draw(0, scene.shape[2] - side, generator)
        box = edges + torch.tensor([left, top, left, top])
        if all(_is_apart(box, other) for other in others):
            window = scene[:, top : top + side, left : left + side]
            window.lerp_(picture.to(window), opacity)
            return box
    return None


def _is_apart(box: Tensor, other: Tensor) -> bool:
    low = torch.maximum(box[:2], other[:2])
    high = torch.minimum(box[2:], other[2:])
    return bool((high <= low).any())
