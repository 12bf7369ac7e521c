"""The shipped student, asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instil import recipe as recipes
from instil.core import Net, dry
from instil.experiment import build
from instil.export.student import load_student, read_description
from instil.recipe.sections import Recipe
from instil.tasks.classification import prepared


class Student:
    """A distilled student: ``student(images)`` gives probabilities, ``student.predict(images)`` class names."""

    def __init__(self, net: Net, classes: tuple[str, ...], kind: str, recipe: Recipe, shape: tuple[int, int, int]):
        self.net, self.classes, self.kind, self.recipe, self.shape = net, classes, kind, recipe, shape

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities (N, C) of images (N, C, H, W): uint8, or float in [0, 1]; resized and normalised as the student expects it."""
        with dry(self.net):
            logits: Tensor = self.net({"image": self._prepared(images)})["logits"].float()
        return logits.softmax(-1) if self.kind == "single" else logits.sigmoid()

    def _prepared(self, images: Tensor) -> Tensor:
        """The images as those that the student was trained on: their range, channels and size."""
        channels, *size = self.shape
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images must have the shape (N, {channels}, H, W), not {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if not images.is_floating_point() or (images.numel() and not (images.min() >= 0 and images.max() <= 1)):
            raise ValueError(f"images must be uint8, or floating point in [0, 1], not {str(images.dtype).removeprefix('torch.')} outside of it")
        return prepared(images.float(), (size[0], size[1]), None, None)

    def predict(self, images: Tensor) -> list[Any]:
        """The likeliest class of each image; where an image may have several, the list of them."""
        probability = self(images)
        if self.kind == "single":
            return [self.classes[number] for number in probability.argmax(-1).tolist()]
        return [[name for name, p in zip(self.classes, row, strict=True) if p > 0.5] for row in probability.tolist()]


def load(run: Path | str) -> Student:
    """The student that a run ships, in eval mode on the CPU. Raises FileNotFoundError where the folder holds none."""
    path = Path(run) / "student.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{run} has no student.safetensors: it is no run folder, or its run is not complete")
    recipe, about = recipes.load(Path(run)), read_description(path)
    channels, height, width = about["shape"]
    shape = channels, height, width
    net = build.bare_net(recipe, len(about["classes"]), shape)
    load_student(net, path)
    return Student(net.eval(), tuple(about["classes"]), about["kind"], recipe, shape)
