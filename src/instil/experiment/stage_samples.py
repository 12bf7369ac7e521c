"""Samples of a stage, and those of earlier stages on which its student is tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instil.data.class_subset import of_classes
from instil.data.joined import JoinedSamples
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.recipe.sections import Recipe


@dataclass(frozen=True)
class StageData:
    """Data of one stage.

    Attributes:
        splits: training, validation and test data, with the classes of the student.
        learned: classes of the training samples.
        earlier_classes: classes of the students of earlier stages, by the name that refers to them
            in a recipe, such as ``previous``.
        own_validation: validation samples of the learned classes.
        own_test: test samples of the learned classes.
    """

    splits: Splits
    learned: tuple[str, ...]
    earlier_classes: Mapping[str, tuple[str, ...]]
    own_validation: Samples
    own_test: Samples


def with_earlier_tests(
    data: StageData, data_of_stages: Sequence[StageData], recipe: Recipe
) -> StageData:
    """Return the data of a stage with the validation and test samples of earlier stages.

    Args:
        data: data of the stage.
        data_of_stages: data of the earlier stages.
        recipe: recipe of the stage.

    Raises:
        ValueError: with ``test_classes``, and for inputs of different shapes.
    """
    if recipe.data.test_classes is not None:
        raise ValueError(
            "test_stages: seen has the test samples of all stages, with their classes. Remove "
            "test_classes"
        )
    # Stages with the same samples share the object.
    stages_by_test = {id(stage.own_test): stage for stage in (*data_of_stages, data)}
    if len(stages_by_test) == 1:
        return data
    classes = tuple(data.splits.classes)
    parts = list(stages_by_test.values())
    splits = replace(
        data.splits,
        validation=_joined([(part.own_validation, part.learned) for part in parts], classes),
        test=_joined([(part.own_test, part.learned) for part in parts], classes),
    )
    return replace(data, splits=splits)


def _joined(
    parts: Sequence[tuple[Samples, tuple[str, ...]]], classes: tuple[str, ...]
) -> JoinedSamples:
    """Join samples, each with its learned classes, with labels in the classes of the student."""
    return JoinedSamples(
        [
            samples if tuple(samples.classes) == classes else of_classes(samples, learned, classes)
            for samples, learned in parts
        ]
    )
