"""Checks."""

from __future__ import annotations

from instil import catalogue
from instil.capabilities import GeneratesText
from instil.cards import has_tag
from instil.core import Objectives
from instil.recipe.errors import RecipeError
from instil.recipe.sections import (
    Recipe,
)


def check_teacher_reads_texts(recipe: Recipe) -> None:
    """RecipeError where a teacher cannot read the texts that are written during training, or cannot read them in time."""
    writes = issubclass(catalogue.find("scheme", recipe.scheme.type), GeneratesText)
    if writes and any(spec.tokenizer for spec in recipe.teachers):
        raise RecipeError(
            f"teacher.tokenizer: the scheme {recipe.scheme.type} writes text in the student's tokens, which a teacher "
            "with another tokenizer cannot read. Expected one tokenizer for both. Leave teacher.tokenizer out, or use "
            "scheme: offline"
        )
    if writes and (recipe.store or any(spec.precompute for spec in recipe.teachers)):
        before = "store" if recipe.store else "teacher.precompute"
        raise RecipeError(
            f"{before}: the scheme {recipe.scheme.type} asks the teacher about texts that are written during training; leave it out"
        )


def _check_labels(recipe: Recipe, objectives: Objectives) -> None:
    """RecipeError for an objective that would look for labels where there are none."""
    other = [
        name
        for name, one in objectives.named()
        if any(one.needs["teacher"]) and not has_tag(one, "aligned_tokens")
    ]
    if other and any(spec.tokenizer for spec in recipe.teachers):
        what = f"{type(objectives[other[0]]).__name__} compares token by token, and the teacher has a tokenizer of its own"
        raise RecipeError(
            f"objectives.{other[0]}: {what}; uld, gold, dskd and dskd_cma find what belongs together"
        )
    made = recipe.data.surrogate is not None and not has_tag(
        catalogue.find("scheme", recipe.scheme.type), "synthetic_labels"
    )
    none = "data.surrogate: such images have none" if made else "data.num_labeled is 0"
    none = (
        "data.augment.mixup: a mixture of two images has none"
        if recipe.data.augment.mixup
        else none
    )
    needing = [name for name, objective in objectives.named() if objective.items.labelled]
    if needing and (recipe.data.augment.mixup or recipe.data.num_labeled == 0 or made):
        raise RecipeError(
            f"objectives.{needing[0]}: {type(objectives[needing[0]]).__name__} needs labels, and {none}; leave one of the two out"
        )
