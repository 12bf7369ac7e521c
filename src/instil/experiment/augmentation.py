"""Augmentation of training samples: that of images, of other samples, or of the task."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from instil.core import Batch
from instil.data.images import ImageData
from instil.data.samples import Samples
from instil.data.surrogate_images import SurrogateDataset, SyntheticImages
from instil.recipe import RecipeError
from instil.recipe.data_sections import AugmentConfig
from instil.recipe.options import check
from instil.recipe.sections import Recipe

Augment = Callable[[Batch], Batch]
"""Augmentation of a batch of training samples."""


def augmentation_for(recipe: Recipe, samples: Samples, task: Any, seed: int = 0) -> Augment | None:
    """Return the augmentation of training samples, None if they stay as they are.

    It depends on ``index`` and ``view`` of a sample and on ``seed``. It is an instance of the
    attribute ``augmentation`` of the samples or, if they have none, of the task.

    Args:
        recipe: the recipe, with the options in ``data.augment``.
        samples: training samples.
        task: task of the recipe.
        seed: seed of the run. With a finite number of views it is not used.

    Raises:
        RecipeError: for samples without an augmentation, for options that it does not have, and
            for a network that reads pictures which are not shifted and mirrored with the others.
    """
    config = recipe.data.augment
    augmentation = samples.augmentation or getattr(task, "augmentation", None)
    images = {"crop": config.crop, "flip": config.flip}
    options = {name: value for name, value in images.items() if value} | config.options
    mixes = config.mixup or config.partner
    is_image = isinstance(samples, (ImageData, SurrogateDataset))
    if (mixes and not is_image) or (options and augmentation is None):
        raise RecipeError(
            "data.augment: crop, flip, mixup and partner need images with one label per image. "
            f"'{recipe.data.name}' has other samples. Remove data.augment"
        )
    steps: list[Augment] = []
    if isinstance(samples, SyntheticImages):
        steps.append(functools.partial(samples.materialize, seed=seed))
    if options and augmentation is not None:
        options = _checked(augmentation, options)
        if any(images.values()):
            _check_reads(recipe, getattr(augmentation, "keys", ()))
        # Recorded outputs belong to numbered views, which all seeds must share.
        view_seed = seed if config.views is None else 0
        steps.append(augmentation(**options, seed=view_seed))
    return functools.partial(_apply_all, steps) if steps else None


def _check_reads(recipe: Recipe, changed: Sequence[str]) -> None:
    """Refuse a network that reads another key in place of one that is shifted and mirrored."""
    for config in (recipe.student, *recipe.teachers):
        for key, source in config.reads.items():
            if key in changed and source not in changed:
                raise RecipeError(
                    f"data.augment: crop and flip change {key} only, and a network reads {source} "
                    "in its place (reads). Expected networks that read the changed key. Remove "
                    "crop and flip"
                )


def _checked(augmentation: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options of an augmentation class as Python values."""
    target = _without_seed(augmentation)
    keys = [key for key in AugmentConfig.model_fields if key not in ("crop", "flip")]
    return check(target, options, "data.augment", schedules=False, other_keys=keys)


@functools.cache
def _without_seed(augmentation: Callable[..., Any]) -> Callable[..., None]:
    """Function with the parameters of an augmentation, except the seed, which the run sets."""

    def options(**_: Any) -> None: ...

    signature = inspect.signature(augmentation, eval_str=True)
    parameters = [one for name, one in signature.parameters.items() if name != "seed"]
    options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    options.__name__ = getattr(augmentation, "__name__", "augmentation")
    return options


def _apply_all(steps: list[Augment], batch: Batch) -> Batch:
    for step in steps:
        batch = step(batch)
    return batch
