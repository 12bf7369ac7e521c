"""Recipe that searches for a smaller student of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.experiment.task_builder import build_task
from instil.recipe.overrides import override
from instil.recipe.packaged import UnknownRecipe
from instil.recipe.sections import Recipe
from instil.recipe.short_forms import expand_short_forms
from instil.tasks.bases.default_objectives import default_objectives, has_class_counts

WEIGHTS = "student.safetensors"
"""Weights of the student in a run folder."""
ARCHITECTURE = ("model", "options", "input", "reads", "taps", "classes")
"""Keys of a student's section that a teacher of the same architecture has."""

SHARED = (
    "task",
    "metrics",
    "headline",
    "data",
    "train",
    "seeds",
    "device",
    "imports",
    "folder",
)
"""Sections of a run that the compression of its student has, too."""


def compression_recipe(model: str, data: str | None, changes: Sequence[str]) -> Recipe:
    """Return a recipe whose teacher is a model and whose student starts as its copy.

    Args:
        model: model such as ``timm:resnet18``, which is trained first unless the changes name its
            weights; a run folder or its ``student.safetensors``, whose student is the teacher;
            or a recipe, which is returned with the changes.
        data: name of a data source. None: the data of the run or recipe.
        changes: changes of the recipe, ``key=value``.

    Raises:
        ValueError: for a model without an architecture, or without data.
        RecipeError: for changes that do not fit.
    """
    path = Path(model)
    if path.suffix == ".safetensors":
        path = _folder_of(path)
    if (path / WEIGHTS).is_file():
        return _build(_of_run(path), data, changes)
    is_recipe = path.exists() or ":" not in model
    if is_recipe:
        try:
            return recipes.load(model, [*([] if data is None else [f"data={data}"]), *changes])
        except UnknownRecipe as error:
            raise ValueError(
                f"MODEL: {error} A model has its source in front, such as timm:{model}"
            ) from error
    if data is None:
        raise ValueError(
            f"DATA: missing. Expected a data source after {model}, such as digits or folder. "
            "`instil methods --kind data` lists them"
        )
    name = f"small-{model.rpartition(':')[2]}"
    return _build(
        {"name": name, "folder": str(Path.cwd()), "teacher": {"model": model}}, data, changes
    )


def _folder_of(weights: Path) -> Path:
    """Return the run folder of a file of weights."""
    folder = weights.parent
    if weights.name == WEIGHTS and (folder / "recipe.yaml").is_file():
        return folder
    raise ValueError(
        f"MODEL: {weights} has no architecture. Expected a model such as timm:resnet18, a run "
        f"folder or a recipe. Name the model, and add teacher.weights={weights}"
    )


def _of_run(folder: Path) -> dict[str, Any]:
    """Return sections of a recipe whose teacher is the student of a run."""
    own = recipes.load(folder)
    student = own.student.model_dump(mode="json")
    if own.has_stages or own.student.changes or own.student.model == "teacher":
        raise ValueError(
            f"MODEL: the student of {folder} is compressed or trained in stages. Expected a "
            "student that student.model builds. Name its teacher's recipe instead"
        )
    teacher = {key: student[key] for key in ARCHITECTURE}
    teacher["weights"] = str((folder / WEIGHTS).resolve())
    data = own.model_dump(mode="json", include=set(SHARED))
    return data | {"name": f"small-{own.name}", "teacher": teacher}


def _build(sections: dict[str, Any], data: str | None, changes: Sequence[str]) -> Recipe:
    """Return the recipe of sections with changes, and the objectives that fit its data."""
    whole = {**sections, "student": {"model": "teacher"}}
    if data is not None:
        whole["data"] = {"name": data}
    # One after another, as in the changes of a packaged recipe.
    for change in changes:
        whole = expand_short_forms(override(whole, [change]))
    if "objectives" not in whole:
        whole["objectives"] = _default_objectives(whole)
    return recipes.build(whole)


def _default_objectives(sections: dict[str, Any]) -> dict[str, Any]:
    """Return the objectives that ``instil.distil`` has by default for the labels of the data."""
    # The objective only completes the recipe, whose data have the number of classes.
    recipe = recipes.build({**sections, "objectives": {"kd": {}}})
    task = build_task(recipe)
    num_classes = 0
    # Reading texts may take minutes, and only some tasks depend on the classes of the data.
    if has_class_counts(task):
        num_classes = len(Experiment.from_recipe(recipe).splits.classes)
    return default_objectives(task, num_classes)
