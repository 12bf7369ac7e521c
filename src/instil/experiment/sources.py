"""Where samples come from: the sources that a recipe names, and what stands for samples that a student must not see."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instil.cards import closest
from instil.catalogue.user_code import UntrustedCode, module_file, user_function
from instil.data import sources
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.data.surrogate_images import ForeignImages, ImageSource, SyntheticImages
from instil.data.surrogates.blank import Placeholder
from instil.data.surrogates.blobs import Blobs
from instil.data.surrogates.noise import Noise
from instil.recipe.options import check
from instil.recipe.sections import DataConfig, Recipe, SurrogateConfig

IMAGE_SOURCES: dict[str, type[ImageSource]] = {
    "noise": Noise,
    "blobs": Blobs,
    "scheme": Placeholder,
}


def surrogate_samples(images: SurrogateConfig, splits: Splits, recipe: Recipe) -> Samples:
    """What stands for the training samples: as many images that are made, or all training images of another source, without their labels."""
    if recipe.data.num_labeled is not None:
        raise ValueError("such images have no labels; leave data.num_labeled out")
    if images.name in IMAGE_SOURCES:
        return SyntheticImages(
            splits.validation, len(splits.train), image_source(images.name, images.options)
        )
    try:
        return ForeignImages(
            splits.validation,
            data_source(images.name, images.options, recipe, "data.surrogate").train,
        )
    except UnknownSource as error:
        raise ValueError(
            f"there are no such images, and {error}; without a source there are {', '.join(IMAGE_SOURCES)}"
        ) from error


def image_source(name: str, options: Mapping[str, Any]) -> ImageSource:
    """What makes images of this kind."""
    made: ImageSource = IMAGE_SOURCES[name](
        **check(IMAGE_SOURCES[name], options, "data.surrogate", name, schedules=False)
    )
    return made


def data_source(
    name: str,
    given: Mapping[str, Any],
    recipe: Recipe,
    path: str = "data",
    tokenizer: str | None = None,
    trust_code: bool = True,
) -> Splits:
    """Train, validation and test data of a source.

    Args:
        name: name of a source of the package, with its first option after a colon, or
            ``my_module:function`` for a function of the user that returns ``Splits``.
        given: options of the source.
        recipe: recipe whose folder paths are seen from, and whose task the labels are for.
        path: recipe path, for messages.
        tokenizer: tokenizer of a teacher that has one of its own.
        trust_code: whether a function of the user may be called.

    Raises:
        UntrustedCode: for a function of the user without ``trust_code``.
        UnknownSource: for a name that no source has.
        ValueError: for options that do not fit, and data that cannot be read.
    """
    source, _, detail = name.partition(":")
    is_builtin = source in source_names() or not detail
    if not (is_builtin or trust_code):
        raise UntrustedCode("name", name, Path(recipe.folder))
    function = source_function(source) if is_builtin else _user_source(source, detail, recipe)
    signature = inspect.signature(function).parameters
    first, *others = signature or [""]
    if "teacher_tokenizer" in given:
        raise ValueError("which tokenizer the teacher has is said by teacher.tokenizer")
    if tokenizer is not None and "teacher_tokenizer" not in others:
        raise ValueError(
            f"'{source}' does not come in the tokens of two tokenizers; leave teacher.tokenizer out"
        )
    other_keys = DataConfig.model_fields if path == "data" else ("name",)
    first_option = {first: detail} if detail and is_builtin else {}
    shown = source if is_builtin else name
    options = check(function, dict(given) | first_option, path, shown, other_keys=other_keys)
    if tokenizer is not None:
        options["teacher_tokenizer"] = tokenizer
    if "base" in signature:
        options.setdefault("base", Path(recipe.folder))
    if "task_name" in signature:
        options["task_name"] = recipe.task.name
    return _called(function, options, name, is_builtin)


def _called(
    function: Callable[..., Splits], options: dict[str, Any], name: str, is_builtin: bool
) -> Splits:
    """Result of a source; whatever a user's own function raises is an error of the data."""
    if is_builtin:
        return function(**options)
    try:
        made = function(**options)
    except ValueError:
        raise
    except Exception as error:  # code of the user may raise anything
        raise ValueError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(made, Splits):
        raise ValueError(
            f"{name} returned {type(made).__name__}. Expected instil.data.splits.Splits, "
            "for example of splits({'train': ArrayData(image, label, classes)}, 0.15, 0.15)"
        )
    return made


class UnknownSource(ValueError):
    """A name that no source of data has."""


@functools.cache
def source_names() -> list[str]:
    """Return the names of the package's data sources: the files of ``data/sources``."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))


def source_function(name: str) -> Callable[..., Splits]:
    """Return the function of a data source."""
    names = source_names()
    if name not in names:
        raise UnknownSource(
            f"there is no data source '{name}'; {closest(name, names)}, or my_module:function"
        )
    module = importlib.import_module(f"instil.data.sources.{name}")
    function: Callable[..., Splits] = getattr(module, name)
    return function


def _user_source(module: str, name: str, recipe: Recipe) -> Callable[..., Splits]:
    """A function of a module beside the recipe, or of the recipe's ``imports``."""
    folder = Path(recipe.folder)
    if module_file(module, folder) is None and module not in recipe.imports:
        raise UnknownSource(
            f"there is no data source '{module}', and no module {module}.py in "
            f"{folder.resolve()} or in imports; {closest(module, source_names())}"
        )
    return user_function(module, name, folder, recipe.imports)
