"""The distilled student of a run: loading and prediction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from instil import catalogue
from instil import recipe as recipes
from instil.core import Batch, Net, side_effect_free
from instil.data.raw_rows import FACT, RawRows, is_raw
from instil.data.samples import Facts
from instil.deployment.image_inputs import as_images, warn_of_size
from instil.experiment.exported_network import build_exported_network
from instil.export.student import load_student, read_description
from instil.networks.network_call import read_keys, reads_of, write_keys
from instil.networks.sklearn_model import SklearnModel
from instil.plan import resume as begun
from instil.recipe.sections import Recipe
from instil.tasks.classification import Classification
from instil.tasks.depth import Depth
from instil.tasks.diffusion import Diffusion
from instil.tasks.speech_recognition import SpeechRecognition

ONE_OF = ("single", "token", "sequence")
"""Kinds of labels with one class per item, position or token, so that probabilities sum to 1."""


class Student:
    """A distilled student, ready for prediction.

    ``student(images)`` returns probabilities, ``student.predict(images)`` class names. A student
    of a task without images takes the input tensor of its task, such as ``input_ids``, or a batch
    if the task has several inputs. A student of table rows also takes raw columns.

    Attributes:
        net: the network, in eval mode.
        classes: names of the classes; for a regression, names of the outputs.
        kind: kind of label, such as ``single`` (one class per item) or ``real`` (regression).
        recipe: recipe of the run.
        shape: shape of one input.
        task: task of the recipe.
        raw_rows: encoder of raw table rows; None for other data.
    """

    def __init__(
        self,
        net: Net,
        classes: tuple[str, ...],
        kind: str,
        recipe: Recipe,
        shape: tuple[int, ...],
        raw_rows: RawRows | None = None,
    ):
        self.net = net
        self.classes = classes
        self.kind = kind
        self.recipe = recipe
        self.shape = shape
        self.raw_rows = raw_rows
        self.task = catalogue.find("task", recipe.task.name)(kind)
        self.task.set_classes(classes)

    def __call__(self, inputs: Any) -> Tensor:
        """Compute probabilities.

        Args:
            inputs: images (N, C, H, W) as a tensor or array, uint8 or float in [0, 1]; arrays
                (N, H, W, C), image files, PIL images, or a list of these, normalized as in
                training. Classifications resize files; arrays and tensors of another size are a
                warning without an input size. For other tasks the input tensor or a batch; for a
                table also columns by name, or a DataFrame.

        Returns:
            (N, C), or (N, H, W, C) for segmentation; (N, T, C) for the tokens of a language model
            or an encoder-decoder; for a regression its outputs (N, D). For raw columns they are in
            the unit of the label.

        Raises:
            ValueError: if the inputs do not fit the task, or if the task has no classes. In the
                second case call ``student.net(batch)``.
        """
        raw_rows = self.raw_rows if is_raw(inputs) else None
        if raw_rows is not None:
            inputs = raw_rows.encode(inputs)
        if self.task.inputs == ("image",) and not isinstance(inputs, Mapping):
            is_resized = isinstance(self.task, Classification)
            size = (self.shape[1], self.shape[2]) if is_resized else None
            inputs = as_images(inputs, self.shape[0], size)
            if size and "size" not in getattr(self.net.call, "keywords", {}):
                warn_of_size(inputs, size)
        if "logits" not in self.task.roles:
            raise ValueError(
                f"student: the outputs of {self.task.title} are {' and '.join(self.task.roles)}, "
                "not classes. Call the network instead: student.net(batch)"
            )
        with side_effect_free(self.net):
            logits: Tensor = self.net(self._to_batch(inputs))["logits"].float()
        if self.kind == "real":
            return logits if raw_rows is None else raw_rows.restore(logits)
        return logits.softmax(-1) if self.kind in ONE_OF else logits.sigmoid()

    def _to_batch(self, inputs: Any) -> Batch:
        """Batch with the keys of the data, from a tensor or from a mapping with these keys."""
        reads = reads_of(self.net.call)
        if isinstance(inputs, Mapping) and set(reads.values()) <= set(inputs):
            inputs = read_keys(dict(inputs), reads)
        return write_keys(self.task.to_batch(inputs, self.shape), reads)

    def predict(self, inputs: Any) -> list[Any]:
        """Predict classes.

        Args:
            inputs: inputs of ``student(inputs)``.

        Returns:
            One entry per sample: the most likely class; with several labels those with a
            probability above 0.5; for segmentation class indices (H, W); for depth (H, W); for
            a regression or pose the values by name; for speech recognition the text.
        """
        if isinstance(self.task, SpeechRecognition):
            with side_effect_free(self.net):
                return list(self.task.transcripts(self.net(self._to_batch(inputs))))
        probability = self(inputs)
        if isinstance(self.task, Depth):
            return list(probability[..., 0])
        if self.kind == "real":
            return [dict(zip(self.classes, row, strict=True)) for row in probability.tolist()]
        if probability.ndim > 2:
            return list(probability.argmax(-1))
        if self.kind == "single":
            return [self.classes[index] for index in probability.argmax(-1).tolist()]
        rows = (probability > 0.5).tolist()
        return [list(itertools.compress(self.classes, row)) for row in rows]

    def sample(
        self, count: int, label: Any = None, steps: int | None = None, seed: int = 0
    ) -> Tensor:
        """Generate images with a diffusion model.

        Args:
            count: number of images.
            label: classes (N,), as indices; None: no class.
            steps: number of steps; None: that of the recipe.
            seed: seed of the noise.

        Returns:
            (N, C, H, W) in [0, 1].

        Raises:
            ValueError: for a student of another task.
        """
        if not isinstance(self.task, Diffusion):
            raise ValueError(
                f"sample: a student of {self.task.title} generates no images. Expected one of the "
                "task diffusion"
            )
        classes = None if label is None else torch.as_tensor(label)
        return self.task.sampler(self.net, steps).generate(count, self.shape, classes, seed)


class StudentDescription(BaseModel):
    """Description of a student in the header of its weights file."""

    model_config = ConfigDict(strict=False, allow_inf_nan=False)

    classes: list[str]
    facts: dict[str, int | float | str | bool | list[int] | list[str] | None]
    shape: list[int]
    kind: str


def load(run: Path | str, *, trust_code: bool = False) -> Student:
    """Load the student of a finished run, in eval mode on the CPU.

    No code of the folder is executed unless ``trust_code`` is set, so that a folder from an
    unknown source is safe to load. A student that is built by a user's function, a recipe with
    ``imports``, and an estimator whose library does not check its data, need ``trust_code``.

    Args:
        run: run folder.
        trust_code: whether to execute the Python modules that the run's recipe names.

    Returns:
        The student.

    Raises:
        FileNotFoundError: if the folder has no student.
        UntrustedCode: if code of the folder would be executed without ``trust_code``.
        ValueError: if a file of the run is damaged.
    """
    path = Path(run) / "student.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{run}: the file student.safetensors is missing. Expected the folder of a complete run"
        )
    # Weights must be loaded into the network that was trained: an edited recipe builds another.
    begun.check_recipe_file(Path(run))
    recipe = recipes.load(Path(run), trust_code=trust_code)
    description = _read_description(path)
    facts: Facts = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in description.facts.items()
    }
    net = build_exported_network(recipe, facts, description.shape, trust_code)
    load_student(net, path)
    if isinstance(net.model, SklearnModel) and not trust_code:
        _check_types(net.model, path)
    stored = facts.get(FACT)
    return Student(
        net.eval(),
        tuple(description.classes),
        description.kind,
        recipe,
        tuple(description.shape),
        RawRows.from_json(stored) if isinstance(stored, str) else None,
    )


def _check_types(model: SklearnModel, path: Path) -> None:
    """Check that a file has no types whose data a library uses without checks."""
    types = model.unchecked_types()
    if types:
        raise ValueError(
            f"{path}: the student has a {types[0]}, whose library does not check its data, so that "
            "a file from an unknown source could crash the process. Expected a run of your own. If "
            "you trust it, pass trust_code=True, or --trust-code on the command line. The file "
            "student.onnx needs no trust"
        )


def _read_description(path: Path) -> StudentDescription:
    try:
        return StudentDescription.model_validate(read_description(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: the description of the student is damaged. {key}: {first['msg']}. Restore "
            "the file from a copy, or run the recipe again"
        ) from error
