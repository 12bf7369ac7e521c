"""Classes of the teachers of a stage, and the losses that compare only shared classes."""

from __future__ import annotations

from collections.abc import Sequence

from instil import catalogue
from instil.cards import has_tag
from instil.core import Objective, Objectives
from instil.experiment.experiment import Experiment
from instil.experiment.teachers import combiner_class, teacher_class_names
from instil.modules.shared_classes import SharedClasses, compares_logits
from instil.recipe import RecipeError, error_context
from instil.recipe.sections import Recipe
from instil.schemes.offline.offline import Offline


def select_shared_classes(experiment: Experiment, objectives: Objectives) -> None:
    """Let losses that compare logits read the shared classes, with ``teacher.shared_classes``.

    Args:
        experiment: experiment of the stage.
        objectives: losses of its student.

    Raises:
        RecipeError: for a teacher, scheme or loss that does not support it.
    """
    recipe = experiment.recipe
    if not any(config.shared_classes for config in recipe.teachers):
        return
    _check_support(recipe, experiment.splits.kind)
    for name, objective in objectives.named():
        _check_reads_both(name, objective)
    with error_context("teacher.shared_classes"):
        objectives.selection = SharedClasses(
            experiment.splits.classes, teacher_class_names(experiment, 0)
        )


def check_earlier_classes(experiment: Experiment, objectives: Objectives) -> None:
    """Check that a teacher of an earlier stage has the classes of the student, if logits are read.

    Args:
        experiment: experiment of the stage.
        objectives: losses of its student.

    Raises:
        RecipeError: for a teacher with other classes and without ``shared_classes``.
    """
    if has_tag(combiner_class(experiment), "merged_classes"):
        return
    if "logits" not in objectives.reads("teacher"):
        return
    classes = tuple(experiment.splits.classes)
    for index, config in enumerate(experiment.recipe.teachers):
        if not config.earlier or config.shared_classes:
            continue
        names = tuple(teacher_class_names(experiment, index))
        if names != classes:
            raise RecipeError(
                f"teacher: {config.model} has {len(names)} classes ({_listed(names)}). Expected "
                f"the {len(classes)} of the student ({_listed(classes)}). To compare only the "
                "classes that both have, set teacher.shared_classes: true"
            )


def _check_support(recipe: Recipe, label_kind: str) -> None:
    if label_kind != "single":
        raise RecipeError(
            f"teacher.shared_classes: the labels are '{label_kind}'. Expected one class per "
            "sample. Leave shared_classes out"
        )
    if len(recipe.teachers) > 1 or recipe.store is not None:
        raise RecipeError(
            "teacher.shared_classes: needs one teacher whose outputs are computed in the run. "
            "Use one teacher without a store, or ensemble: amalgamated"
        )
    scheme_class = catalogue.find("scheme", recipe.scheme.type)
    if scheme_class is not Offline:
        raise RecipeError(
            f"teacher.shared_classes: the scheme {recipe.scheme.type} may read all classes of the "
            "teacher. Expected scheme: offline"
        )


def _check_reads_both(name: str, objective: Objective) -> None:
    """Check that a loss that reads the teacher's logits compares them with the student's."""
    reads_logits = any("logits" in roles for roles in objective.needs["teacher"])
    if reads_logits and not compares_logits(objective):
        raise RecipeError(
            f"objectives.{name}: {type(objective).__name__} reads logits of the teacher, but not "
            "of the student. Expected a loss that compares them with teacher.shared_classes, such "
            "as kd"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown + (", ..." if len(names) > 5 else "")
