"""Checks that the scheme and the objectives of a stage fit its data and its teachers."""

from __future__ import annotations

from torch import nn

from instil import catalogue
from instil.capabilities import GeneratesText, RetokenizesTexts, SynthesizesImages
from instil.cards import has_tag
from instil.core import Objective, Objectives
from instil.modules.denoiser import Denoiser
from instil.objectives.bases.span_objective import SpanObjective
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe


def check_teacher_reads_texts(recipe: Recipe) -> None:
    """Check that the teachers can read texts that the scheme generates during training.

    Args:
        recipe: one stage.

    Raises:
        RecipeError: if a teacher has its own tokenizer, or if its outputs are computed before
            training.
    """
    scheme_class = catalogue.find("scheme", recipe.scheme.type)
    if not issubclass(scheme_class, GeneratesText):
        return
    has_own_tokens = any(config.tokenizer for config in recipe.teachers)
    if has_own_tokens and not issubclass(scheme_class, RetokenizesTexts):
        raise RecipeError(
            f"teacher.tokenizer: the scheme {recipe.scheme.type} writes text in the student's "
            "tokens, which a teacher with another tokenizer cannot read. Expected one tokenizer "
            "for both. Leave teacher.tokenizer out, or use scheme: on_policy or offline"
        )
    if recipe.store or any(config.precompute for config in recipe.teachers):
        key = "store" if recipe.store else "teacher.precompute"
        raise RecipeError(
            f"{key}: the scheme {recipe.scheme.type} needs teacher outputs for texts that are "
            f"generated during training. Leave {key} out"
        )


def check_changed_inputs(recipe: Recipe) -> None:
    """Check that outputs computed before training belong to the inputs that the teacher reads.

    Args:
        recipe: one stage.

    Raises:
        RecipeError: for such outputs and a scheme that changes the inputs of the teacher.
    """
    if not has_tag(catalogue.find("scheme", recipe.scheme.type), "changed_inputs"):
        return
    teachers = recipe.teachers
    trainings = [config.scheme.type for config in teachers if not (config.ready or config.earlier)]
    computed = {
        "store": recipe.store is not None,
        "teacher.precompute": any(config.precompute for config in teachers),
        "teacher.model": any(config.by_index for config in teachers),
        "teacher.scheme": any(
            has_tag(catalogue.find("scheme", name), "predictions_by_index") for name in trainings
        ),
    }
    for key, is_set in computed.items():
        if is_set:
            raise RecipeError(
                f"{key}: such outputs belong to the samples of the data, and the scheme "
                f"{recipe.scheme.type} changes the inputs of the teacher during training. Expected "
                "a network that runs in every step"
            )


def check_one_text_per_row(recipe: Recipe) -> None:
    """Check that rows hold one text if the scheme generates text after the prompt of a row.

    Args:
        recipe: one stage.

    Raises:
        RecipeError: for ``data.packing`` with such a scheme.
    """
    is_packed = recipe.data.options.get("packing") is True
    if is_packed and issubclass(catalogue.find("scheme", recipe.scheme.type), GeneratesText):
        raise RecipeError(
            f"data.packing: the scheme {recipe.scheme.type} generates text after the prompt of a "
            "row. Expected one text per row, got several. Set data.packing=false"
        )


def check_token_alignment(recipe: Recipe, objectives: Objectives) -> None:
    """Check that all objectives support a teacher with another tokenizer, if there is one.

    Args:
        recipe: one stage.
        objectives: objectives of its student.

    Raises:
        RecipeError: for an objective that compares token by token.
    """
    if not any(config.tokenizer for config in recipe.teachers):
        return
    for name, objective in objectives.named():
        if any(objective.needs["teacher"]) and not has_tag(objective, "aligned_tokens"):
            raise RecipeError(
                f"objectives.{name}: {type(objectives[name]).__name__} compares token by token, "
                "but the teacher has its own tokenizer. Use uld, gold, dskd or dskd_cma, which "
                "align the tokens"
            )
        _check_generated_alignment(recipe, name, objectives[name])


def _check_generated_alignment(recipe: Recipe, name: str, objective: object) -> None:
    """Raise RecipeError for a loss that aligns tokens by labels, which generated text lacks."""
    if not issubclass(catalogue.find("scheme", recipe.scheme.type), RetokenizesTexts):
        return
    if isinstance(objective, Objective) and not any(objective.needs["teacher"]):
        return
    if not isinstance(objective, SpanObjective):
        raise RecipeError(
            f"objectives.{name}: {type(objective).__name__} reads labels, which the student's own "
            f"text does not have. Expected uld or gold with the scheme {recipe.scheme.type} and "
            "teacher.tokenizer"
        )


def check_label_objectives(recipe: Recipe, objectives: Objectives) -> None:
    """Check that there are labels for the objectives that need them.

    Args:
        recipe: one stage.
        objectives: objectives of its student.

    Raises:
        RecipeError: for an objective that needs labels, if the student sees none.
    """
    scheme_class = catalogue.find("scheme", recipe.scheme.type)
    if recipe.data.augment.mixup:
        reason = "data.augment.mixup: a mixture of two images has none"
    elif recipe.data.surrogate is not None and not has_tag(scheme_class, "synthetic_labels"):
        reason = "data.surrogate: such images have none"
    elif recipe.data.num_labeled == 0:
        reason = "data.num_labeled is 0"
    else:
        return
    for name, objective in objectives.named():
        if objective.items.labelled:
            raise RecipeError(
                f"objectives.{name}: {type(objectives[name]).__name__} needs labels, but {reason}. "
                "Remove one of the two"
            )


def check_unread_guidance(model: nn.Module) -> None:
    """Check that a teacher trained on labels is not sampled by a number that it does not learn.

    Args:
        model: the teacher.

    Raises:
        RecipeError: for a diffusion model with guidance that reads the number ``guidance``.
    """
    if isinstance(model, Denoiser) and model.guidance and "guidance" in model.scalars:
        raise RecipeError(
            "teacher.options.guidance: the network reads the number guidance, which it does not "
            f"learn from labels, so its images are not guided. Expected 0, got {model.guidance:g}. "
            "Set guidance in student.options"
        )


def check_surrogate(recipe: Recipe) -> None:
    """Check that ``data.surrogate`` is ``scheme`` if and only if the scheme makes its own images.

    Raises:
        RecipeError: if it is not.
    """
    makes_images = issubclass(catalogue.find("scheme", recipe.scheme.type), SynthesizesImages)
    surrogate = recipe.data.surrogate
    if makes_images == (surrogate is not None and surrogate.name == "scheme"):
        return
    problem = "makes no images. Expected noise, blobs or a data source"
    if makes_images:
        problem = "makes its own images, so this must be scheme"
    raise RecipeError(f"data.surrogate: the scheme {recipe.scheme.type} {problem}")
