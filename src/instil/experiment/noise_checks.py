"""Check of the noise of diffusion models."""

from __future__ import annotations

from instil.core import Scheme
from instil.modules.drawn_noise import check_same_noise
from instil.recipe.errors import error_context
from instil.schemes.bases.diffusion import DiffusionScheme


def check_noise(scheme: Scheme) -> None:
    """Check that denoisers whose outputs are compared read the same noisy images.

    Schemes of diffusion give both sides one noisy image.

    Args:
        scheme: prepared scheme of a stage.

    Raises:
        RecipeError: if student and teacher draw different noisy images.
    """
    if isinstance(scheme, DiffusionScheme) or scheme.teacher is None:
        return
    if not scheme.objectives.reads("teacher"):
        return
    with error_context("student"):
        check_same_noise(scheme.student, scheme.teacher)
