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


class Student:
    """A distilled student: ``student(images)`` gives probabilities, ``student.predict(images)`` class names."""

    def __init__(self, net: Net, classes: tuple[str, ...], kind: str, recipe: Recipe):
        self.net, self.classes, self.kind, self.recipe = net, classes, kind, recipe

    def __call__(self, images: Tensor) -> Tensor:
        """Probabilities (N, C) of images (N, C, H, W): uint8, or float in [0, 1]; resized and normalised as the student expects it."""
        if images.ndim != 4:
            raise ValueError(f"images must have the shape (N, C, H, W), not {tuple(images.shape)}")
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        with dry(self.net):
            logits: Tensor = self.net({"image": images})["logits"].float()
        return logits.softmax(-1) if self.kind == "single" else logits.sigmoid()

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
    net = build.bare_net(recipe, len(about["classes"]), tuple(about["shape"]))
    load_student(net, path)
    return Student(net.eval(), tuple(about["classes"]), about["kind"], recipe)
