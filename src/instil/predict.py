"""The shipped student, asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from instil import catalogue
from instil import recipe as recipes
from instil.core import Net, dry
from instil.data.samples import Facts
from instil.experiment import build
from instil.export.student import load_student, read_description
from instil.image_inputs import as_images
from instil.recipe.sections import Recipe
from instil.tasks.classification import Classification


class Student:
    """A distilled student: ``student(images)`` gives probabilities, ``student.predict(images)`` class names.

    Of other tasks it is asked with their input (``input_ids``), or with a batch where they have several.
    """

    def __init__(
        self, net: Net, classes: tuple[str, ...], kind: str, recipe: Recipe, shape: tuple[int, ...]
    ):
        self.net, self.classes, self.kind, self.recipe, self.shape = (
            net,
            classes,
            kind,
            recipe,
            shape,
        )
        self.task = catalogue.find("task", recipe.task.name)(kind)

    def __call__(self, inputs: Any) -> Tensor:
        """Probabilities (N, C), or (N, H, W, C) of pixels; of a regression its outputs (N, D).

        Args:
            inputs: images (N, C, H, W) as a tensor or array, uint8 or float in [0, 1], arrays
                (N, H, W, C), picture files, PIL images or a list of these; other tasks take their
                input or a batch. Images are resized and normalised as the student expects them.

        Raises:
            ValueError: for other inputs than those of the task, and for a task without classes,
                whose ``net`` takes a batch.
        """
        if self.task.inputs == ("image",) and not isinstance(inputs, Mapping):
            resized = isinstance(self.task, Classification)
            inputs = as_images(inputs, self.shape[0], self._size if resized else None)
        if "logits" not in self.task.roles:
            raise ValueError(
                f"a student of {self.task.title} gives {' and '.join(self.task.roles)}, no classes; ask its net: student.net(batch)"
            )
        with dry(self.net):
            logits: Tensor = self.net(self.task.asked(inputs, self.shape))["logits"].float()
        return (
            logits
            if self.kind == "real"
            else logits.softmax(-1)
            if self.kind == "single"
            else logits.sigmoid()
        )

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of the images that it was trained on."""
        return self.shape[1], self.shape[2]

    def predict(self, inputs: Any) -> list[Any]:
        """The likeliest class of each sample; where it may have several, the list of them; of pixels, the class numbers (H, W) of each image.

        Of a regression, each sample's outputs by their names.
        """
        probability = self(inputs)
        if self.kind == "real":
            return [dict(zip(self.classes, row, strict=True)) for row in probability.tolist()]
        if probability.ndim > 2:
            return list(probability.argmax(-1))
        if self.kind == "single":
            return [self.classes[number] for number in probability.argmax(-1).tolist()]
        return [
            [name for name, p in zip(self.classes, row, strict=True) if p > 0.5]
            for row in probability.tolist()
        ]


def load(run: Path | str) -> Student:
    """The student that a run ships, in eval mode on the CPU. Raises FileNotFoundError where the folder holds none."""
    path = Path(run) / "student.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{run} has no student.safetensors: it is no run folder, or its run is not complete"
        )
    recipe, about = recipes.load(Path(run)), read_description(path)
    facts: Facts = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about["facts"].items()
    }
    net = build.bare_net(recipe, facts, about["shape"])
    load_student(net, path)
    return Student(
        net.eval(), tuple(about["classes"]), about["kind"], recipe, tuple(about["shape"])
    )
