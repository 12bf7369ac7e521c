"""Augmentation of the training samples of a recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable

from instil.core import Batch
from instil.data.augmentation import Augmentation
from instil.data.samples import Samples
from instil.data.surrogate_images import SyntheticImages
from instil.experiment.recipe_checks import check_can_augment
from instil.recipe.sections import Recipe

Augment = Callable[[Batch], Batch]
"""Augmentation of a batch of training samples."""


def augmentation_for(recipe: Recipe, samples: Samples, seed: int = 0) -> Augment | None:
    """Return the augmentation of training samples, None if they stay as they are.

    It depends on ``index`` and ``view`` of a sample and on ``seed``. With a finite number of
    views it is the same for every seed.

    Args:
        recipe: the recipe.
        samples: training samples.
        seed: seed of the run.

    Raises:
        RecipeError: for samples that cannot be augmented.
    """
    options = recipe.data.augment
    check_can_augment(samples, recipe)
    steps: list[Augment] = []
    if isinstance(samples, SyntheticImages):
        steps.append(functools.partial(samples.materialize, seed=seed))
    if options.crop or options.flip:
        # Recorded outputs belong to numbered views, which all seeds must share.
        view_seed = seed if options.views is None else 0
        steps.append(Augmentation(options.crop, options.flip, view_seed))
    return functools.partial(_apply_all, steps) if steps else None


def _apply_all(steps: list[Augment], batch: Batch) -> Batch:
    for step in steps:
        batch = step(batch)
    return batch
