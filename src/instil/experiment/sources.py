"""Where samples come from: the sources that a recipe names, and what stands for samples that a student must not see."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instil import data
from instil.core import closest
from instil.data.blank import Blank
from instil.data.blobs import Blobs
from instil.data.made import Borrowed, Made, Maker
from instil.data.noise import Noise
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.recipe.options import check
from instil.recipe.sections import Data, Images, Recipe

MAKERS: dict[str, type[Maker]] = {"noise": Noise, "blobs": Blobs, "blank": Blank}


def substitutes(images: Images, splits: Splits, recipe: Recipe) -> Samples:
    """What stands for the training samples: as many images that are made, or all training images of another source, without their labels."""
    if recipe.data.num_labeled is not None:
        raise ValueError("such images have no labels; leave data.num_labeled out")
    if images.name in MAKERS:
        return Made(splits.validation, len(splits.train), maker(images.name, images.options))
    try:
        return Borrowed(
            splits.validation, data_source(images.name, images.options, recipe, "data.images").train
        )
    except UnknownSource as error:
        raise ValueError(
            f"there are no such images, and {error}; without a source there are {', '.join(MAKERS)}"
        ) from error


def maker(name: str, options: Mapping[str, Any]) -> Maker:
    """What makes images of this kind."""
    made: Maker = MAKERS[name](**check(MAKERS[name], options, "data.images", name, schedules=False))
    return made


def data_source(
    name: str,
    given: Mapping[str, Any],
    recipe: Recipe,
    path: str = "data",
    tokenizer: str | None = None,
) -> Splits:
    """The three data sets of a source; what follows a colon in its name is its first option. ``tokenizer``: of a teacher that has another one."""
    source, _, detail = name.partition(":")
    function = _source(source)
    first, *others = inspect.signature(function).parameters or [""]
    if "teacher_tokenizer" in given:
        raise ValueError("which tokenizer the teacher has is said by teacher.tokenizer")
    if tokenizer is not None and "teacher_tokenizer" not in others:
        raise ValueError(
            f"'{source}' does not come in the tokens of two tokenizers; leave teacher.tokenizer out"
        )
    beside = Data.model_fields if path == "data" else ("name",)
    options = check(
        function, dict(given) | ({first: detail} if detail else {}), path, source, beside=beside
    )
    if tokenizer is not None:
        options["teacher_tokenizer"] = tokenizer
    if "base" in (first, *others):
        options.setdefault("base", Path(recipe.folder))
    splits: Splits = function(**options)
    return splits


class UnknownSource(ValueError):
    """A name that no source of data has."""


def _source(name: str) -> Callable[..., Splits]:
    """The function that a file of ``data`` is named after."""
    known = [module.name for module in pkgutil.iter_modules(data.__path__) if not module.ispkg]
    sources = [
        one
        for one in known
        if f"def {one}(" in Path(data.__path__[0], f"{one}.py").read_text(encoding="utf-8")
    ]
    if name not in sources:
        raise UnknownSource(f"there is no data source '{name}'; {closest(name, sources)}")
    function: Callable[..., Splits] = getattr(importlib.import_module(f"instil.data.{name}"), name)
    return function
