"""Checks of the classes of teachers, and of those that a configuration of transformers names."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from instil.core import Batch, Net
from instil.experiment.dry_run_checks import check_classes
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import teacher_class_names
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig
from instil.students.adapted_model import without_wrapper

UNNAMED = "LABEL_"
"""Beginning of the names that transformers invents for classes without one."""


def check_teacher_classes(experiment: Experiment, teachers: Sequence[Net], batch: Batch) -> None:
    """Check the classes of the logits of all teachers of a stage.

    Args:
        experiment: experiment of the stage.
        teachers: its teachers.
        batch: batch of the student.

    Raises:
        RecipeError: for another number or another order of classes than in the data.
    """
    for index, net in enumerate(teachers):
        config = experiment.recipe.teachers[index]
        class_names = teacher_class_names(experiment, index)
        classes = class_names if config.shared_classes else experiment.splits.classes
        check_classes(experiment, net, batch, "teacher", class_names, classes)
        if config.ready and not config.classes:
            _check_own_names(experiment, _own_names(net.model), class_names)
        if not config.ready and "is_trained" not in config.model_fields_set:
            _warn_of_second_training(experiment, net.model, config)


def _check_own_names(experiment: Experiment, names: Sequence[str], classes: Sequence[str]) -> None:
    """Compare the class names in a trained teacher's own configuration with those of the data.

    Raises:
        RecipeError: for the same names in another order.
    """
    if len(names) != len(classes):
        return
    own, expected = ([name.casefold() for name in side] for side in (names, classes))
    if own == expected:
        return
    listed = ", ".join(names)
    if sorted(own) == sorted(expected):
        order = ", ".join(classes[expected.index(name)] for name in own)
        raise RecipeError(
            f"teacher: its logits have the order {listed} (id2label of its configuration), the "
            f"labels of the data {', '.join(classes)}. Expected one order. Set data.class_subset: "
            f"[{order}]"
        )
    warning = (
        f"teacher: its classes are {listed} (id2label of its configuration), those of the data "
        f"{', '.join(classes)}. They are compared in this order. data.class_subset changes it, and "
        "teacher.classes replaces the names"
    )
    # Labels such as 0 and 1 have no names to compare.
    if not all(name.isdigit() for name in classes) and warning not in experiment.warnings:
        experiment.warnings.append(warning)


def _warn_of_second_training(experiment: Experiment, model: nn.Module, config: ModelConfig) -> None:
    """Warn of a teacher whose folder has a trained head, unless the recipe sets ``is_trained``."""
    bare = without_wrapper(model)
    name = type(bare).__name__
    # A folder of a language model names another class, whose head is not that of a classifier.
    saved_classes = getattr(getattr(bare, "config", None), "architectures", None) or ()
    if not (config.pretrained and name.endswith("Classification") and name in saved_classes):
        return
    warning = (
        f"teacher: {config.options.get('path', config.model)} is a trained {name}, and is trained "
        "again on the data of the recipe. Set is_trained: true to use it as it is, or false if "
        "the training is intended"
    )
    if warning not in experiment.warnings:
        experiment.warnings.append(warning)


def _own_names(model: nn.Module) -> list[str]:
    """Class names of a model of transformers in the order of its logits; empty without names."""
    bare = without_wrapper(model)
    by_index = getattr(getattr(bare, "config", None), "id2label", None) or {}
    names = [str(by_index[index]) for index in sorted(by_index, key=int)]
    return [] if any(name.startswith(UNNAMED) for name in names) else names
