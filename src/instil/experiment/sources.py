"""Data sources of a recipe, and images that replace training data that the student must not see."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instil import catalogue
from instil.capabilities import GeneratesText
from instil.cards import suggestion
from instil.catalogue.user_code import UntrustedCode, module_file, user_function
from instil.data.item_data import ItemData
from instil.data.paths import MissingPath
from instil.data.ragged_rows import RaggedRows
from instil.data.samples import Samples
from instil.data.splits import Splits
from instil.data.surrogate_images import ForeignImages, ImageSource, SyntheticImages
from instil.data.surrogates.blank import Placeholder
from instil.data.surrogates.blobs import Blobs
from instil.data.surrogates.noise import Noise
from instil.experiment.source_functions import UnknownSource, source_function, source_names
from instil.recipe.errors import RecipeError
from instil.recipe.options import check
from instil.recipe.sections import DataConfig, Recipe, SurrogateConfig
from instil.recipe.stages import stages

IMAGE_SOURCES: dict[str, type[ImageSource]] = {
    "noise": Noise,
    "blobs": Blobs,
    "scheme": Placeholder,
}


def surrogate_samples(
    images: SurrogateConfig, splits: Splits, recipe: Recipe, sources: dict[str, Splits]
) -> Samples:
    """Return the unlabelled images that replace the training samples of the student.

    Args:
        images: the section ``data.surrogate``: a generator of images, or a data source.
        splits: data of the recipe. Generators make one image per training sample.
        recipe: the recipe.
        sources: data that are loaded already, see ``shared_source``.

    Raises:
        ValueError: for a source that does not exist, or if the recipe has ``data.num_labeled``.
    """
    if recipe.data.num_labeled is not None:
        raise ValueError(
            f"surrogate images have no labels, got data.num_labeled: {recipe.data.num_labeled}. "
            "Leave data.num_labeled out"
        )
    if images.name in IMAGE_SOURCES:
        source = image_source(images.name, images.options)
        return SyntheticImages(splits.validation, len(splits.train), source)
    try:
        other = shared_source(sources, images.name, images.options, recipe, "data.surrogate")
    except UnknownSource as error:
        raise ValueError(
            f"there are no images '{images.name}': {error}. Expected a data source or one of "
            f"{', '.join(IMAGE_SOURCES)}"
        ) from error
    return ForeignImages(splits.validation, other.train)


def shared_source(
    sources: dict[str, Splits], name: str, options: dict[str, Any], recipe: Recipe, path: str
) -> Splits:
    """Return the data of a source, loaded once for equal names and options.

    Args:
        sources: data that are loaded already; new ones are added.
        name: name of the source.
        options: its options.
        recipe: recipe that names it.
        path: recipe path of the section, for messages.
    """
    key = repr((name, sorted(options.items())))
    if key not in sources:
        sources[key] = data_source(name, options, recipe, path)
    return sources[key]


def image_source(name: str, options: Mapping[str, Any]) -> ImageSource:
    """Build a source of synthetic images with checked options."""
    source_class = IMAGE_SOURCES[name]
    return source_class(**check(source_class, options, "data.surrogate", name, schedules=False))


def set_collation(splits: Splits, task: Any) -> None:
    """Join samples of the class ``ItemData`` by the function of a task.

    Args:
        splits: data of a source.
        task: task of the recipe.
    """
    for part in (splits.train, splits.validation, splits.test):
        if isinstance(part, ItemData):
            part.collate = task.collate


def set_row_width(splits: Splits, recipe: Recipe) -> None:
    """Give rows of tokens one width where a batch may not be padded to its own longest row.

    Generated texts may be as long as a row. Recorded teacher outputs have one shape.

    Args:
        splits: data of a source.
        recipe: the recipe.
    """
    every = (splits.train, splits.validation, splits.test)
    parts = [part for part in every if isinstance(part, RaggedRows)]
    schemes = [catalogue.find("scheme", stage.scheme.type) for stage in stages(recipe)]
    generates = any(issubclass(scheme, GeneratesText) for scheme in schemes)
    for part in parts:
        if generates:
            part.fix_width(part.length)
        elif recipe.store is not None:
            part.fix_width()


def data_source(
    name: str,
    options: Mapping[str, Any],
    recipe: Recipe,
    path: str = "data",
    tokenizer: str | None = None,
    trust_code: bool = True,
) -> Splits:
    """Load the training, validation and test data of a source.

    Args:
        name: name of a source in the catalogue, with its first option after a colon, or
            ``my_module:function`` for a function of the user that returns ``Splits``.
        options: options of the source.
        recipe: recipe; paths are relative to its folder, and the labels are for its task.
        path: recipe path, for messages.
        tokenizer: tokenizer of the teachers, if they have their own.
        trust_code: whether a function of the user may be called.

    Raises:
        UntrustedCode: for a function of the user without ``trust_code``.
        UnknownSource: for a name that no source has.
        ValueError: for options that do not fit, and data that cannot be read.
    """
    source, _, detail = name.partition(":")
    is_named = not detail or _is_named(source, recipe)
    if not (is_named or trust_code):
        raise UntrustedCode("name", name, Path(recipe.folder))
    function = source_function(source) if is_named else _user_source(source, detail, recipe)
    signature = inspect.signature(function).parameters
    first, *others = signature or [""]
    _check_tokenizer(options, tokenizer, source, others)
    # Keys of the section that are not options of the source, for messages about typing errors.
    other_keys = DataConfig.model_fields if path == "data" else ("name",)
    first_option = {first: detail} if detail and is_named else {}
    title = source if is_named else name
    arguments = check(function, dict(options) | first_option, path, title, other_keys=other_keys)
    if tokenizer is not None:
        arguments["teacher_tokenizer"] = tokenizer
    if "base" in signature:
        arguments.setdefault("base", Path(recipe.folder))
    if "task_name" in signature:
        arguments["task_name"] = recipe.task.name
    with _option_errors(path, signature, {**options, "name": detail}):
        if source in catalogue.files("data"):
            return function(**arguments)
        return _call_user_source(function, arguments, name)


@contextlib.contextmanager
def _option_errors(
    path: str, options: Collection[str], section: Mapping[str, Any]
) -> Iterator[None]:
    """Add the recipe path to errors about an option, which begin with its name.

    Args:
        path: recipe path of the section.
        options: names of the options of the source.
        section: values of the section, in which the path of a missing file is searched.
    """
    try:
        yield
    except (RecipeError, UntrustedCode):
        raise
    except MissingPath as error:
        raise ValueError(f"{path}{error.key_in(section)}: {error}") from error
    except ValueError as error:
        if re.split(r"[:.\[]", str(error), maxsplit=1)[0] not in options:
            raise
        if str(error).startswith("teacher_tokenizer:"):
            # The section of the teacher has this option.
            raise RecipeError(str(error).replace("_", ".", 1)) from error
        raise ValueError(f"{path}.{error}") from error


def _check_tokenizer(
    options: Mapping[str, Any], tokenizer: str | None, source: str, parameters: Sequence[str]
) -> None:
    """Check that a source can have the tokens of a teacher with its own tokenizer."""
    if "teacher_tokenizer" in options:
        raise ValueError("teacher_tokenizer is not an option of the data. Set teacher.tokenizer")
    if tokenizer is not None and "teacher_tokenizer" not in parameters:
        raise ValueError(
            f"'{source}' cannot give the tokens of a second tokenizer. Expected the source text, "
            "or teachers with the tokenizer of the data. Leave teacher.tokenizer out"
        )


def _is_named(source: str, recipe: Recipe) -> bool:
    """Whether ``source:...`` is a source of the catalogue and no module of the user."""
    if source in catalogue.files("data"):
        return True
    is_module = source in recipe.imports or module_file(source, Path(recipe.folder)) is not None
    return source in source_names() and not is_module


def _call_user_source(
    function: Callable[..., Splits], arguments: dict[str, Any], name: str
) -> Splits:
    """Call a user's function; all that it raises is an error of the data."""
    try:
        splits = function(**arguments)
    except ValueError:
        raise
    except Exception as error:  # code of the user may raise anything
        raise ValueError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(splits, Splits):
        raise ValueError(
            f"{name} returned {type(splits).__name__}. Expected instil.data.splits.Splits, "
            "for example of splits({'train': ArrayData(image, label, classes)}, 0.15, 0.15)"
        )
    return splits


def _user_source(module: str, name: str, recipe: Recipe) -> Callable[..., Splits]:
    """Function of a module in the recipe's folder, or of the recipe's ``imports``."""
    folder = Path(recipe.folder)
    if module_file(module, folder) is None and module not in recipe.imports:
        raise UnknownSource(
            f"unknown data source '{module}'; {module}.py is neither in {folder.resolve()} "
            f"nor in imports.{suggestion(module, source_names())}"
        )
    return user_function(module, name, folder, recipe.imports)
