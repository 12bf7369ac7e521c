"""What a run was begun with, and the checks of a folder before a run begins or goes on there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.experiment.sample_digest import sample_digest
from instil.files.atomic import remove_temporary_files
from instil.files.checksums import file_sha256
from instil.networks.factory import code_of
from instil.plan.run_folder import RunFolder
from instil.recipe import to_yaml
from instil.recipe.errors import RecipeError
from instil.recipe.sections import ModelConfig, Recipe

STATE = "checkpoint/run.json"
LOCK = "checkpoint/lock"
LATER = ("seeds", "baselines", "export", "device")
"""Keys of a recipe that may change on --resume: arms that are finished stay what they are."""


class Begun(BaseModel):
    """SHA-256 of the recipe files that the run may have, and fingerprints of its data and code by what they are."""

    model_config = ConfigDict(extra="forbid")

    recipes: list[str]
    inputs: dict[str, str]


def check_new(out: Path) -> None:
    """Refuse a folder that holds something.

    Args:
        out: of a new run; it need not exist.

    Raises:
        FileExistsError: if there is a run or any other file.
        NotADirectoryError: if it is a file.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise NotADirectoryError(f"--out: {out} is not a folder. Take another one.")
    if (out / "recipe.yaml").exists():
        raise FileExistsError(
            f"{out} already holds a run; go on with it (--resume {out}) or take another --out"
        )
    # A run that was stopped before it wrote its recipe leaves these two.
    own = {out / STATE, out / LOCK, out / "checkpoint"}
    if other := sorted(path for path in out.rglob("*") if path not in own):
        raise FileExistsError(
            f"--out: {out} is not empty. Expected a new or an empty folder, got one with "
            f"'{other[0].relative_to(out)}'. Take another --out"
        )


def check_resumable(recipe: Recipe, folder: Path) -> None:
    """Refuse to go on with another recipe than that of the run.

    Args:
        recipe: with the changes of the command line.
        folder: of the run.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the recipe differs, or its file is not what the run wrote.
    """
    if not (folder / "recipe.yaml").exists():
        raise FileNotFoundError(f"{folder} holds no run to go on with: it has no recipe.yaml")
    before = recipes.load(folder)
    for key in Recipe.model_fields:
        if key in LATER or getattr(before, key) == getattr(recipe, key):
            continue
        dumps = (one.model_dump(mode="json")[key] for one in (before, recipe))
        path, old, new = next(_differences(key, *dumps), (key, None, None))
        raise ValueError(
            f"{path} is not what the run in {folder} was begun with. Expected {_short(old)}, got "
            f"{_short(new)}. Go on without the change, or begin another run (--out)"
        )
    check_recipe_file(folder)


def check_recipe_file(folder: Path) -> None:
    """Compare the recipe of a run with the checksum that the run wrote beside it, if there is one.

    Args:
        folder: of the run.

    Raises:
        ValueError: if the recipe was edited or damaged.
    """
    state = read(RunFolder(folder))
    if state is not None and file_sha256(folder / "recipe.yaml") not in state.recipes:
        raise ValueError(
            f"{folder / 'recipe.yaml'}: the file was edited or damaged after the run began. "
            "Restore it; seeds, baselines and export are changed on the command line "
            f"(instil run --resume {folder} seeds=[0,1])"
        )


def read(folder: RunFolder) -> Begun | None:
    """What the run in a folder was begun with, None if it wrote nothing yet.

    Raises:
        ValueError: if the file is damaged.
    """
    remedy = "The run cannot be gone on with; begin another one (--out)"
    content = folder.read_json(STATE, remedy)
    if content is None:
        return None
    try:
        return Begun.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{folder.path / STATE}: {where}: {problem['msg']}. {remedy}.") from None


def write(folder: RunFolder, experiment: Experiment) -> None:
    """Write what a run is begun with, and its recipe.

    Args:
        folder: of the run.
        experiment: recipe and data.

    Raises:
        ValueError: if the run was begun with other data or code.
    """
    recipe, inputs, before = to_yaml(experiment.recipe), fingerprints(experiment), read(folder)
    if before is not None:
        for name in {**before.inputs, **inputs}:
            if before.inputs.get(name) != inputs.get(name):
                raise RecipeError(
                    f"{name}: changed since the run in {folder.path} was begun. Expected what it "
                    "was then: finished arms cannot be compared with new ones. Restore it, or "
                    "begin another run (--out)"
                )
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    # Both recipes are valid until the file is replaced: a process may be killed in between.
    older = [] if before is None else before.recipes
    folder.write_json(STATE, {"recipes": [*older[-1:], digest], "inputs": inputs})
    folder.write("recipe.yaml", recipe)
    folder.write_json(STATE, {"recipes": [digest], "inputs": inputs})


def fingerprints(experiment: Experiment) -> dict[str, str]:
    """Fingerprints of all that a recipe reads beside itself: data, the user's code, files of weights."""
    recipe, splits = experiment.recipe, experiment.splits
    base = Path(recipe.folder)
    inputs = {
        f"data ({name} split)": sample_digest(getattr(splits, name))
        for name in _opened_splits(experiment)
    }
    for module in recipe.imports:
        inputs[f"imports ({module})"] = _digest(code_of(f"{module}:", base))
    for path, spec in _models(recipe, ""):
        inputs[f"{path}.model ({spec.model})"] = _digest(code_of(spec.model, base))
        if spec.weights is not None:
            inputs[f"{path}.weights ({spec.weights})"] = file_sha256(recipe.locate(spec.weights))
    return inputs


def _opened_splits(experiment: Experiment) -> tuple[str, ...]:
    """Splits that a run reads: not the training images where the student must do without them."""
    teachers = [spec for stage in experiment.stages for spec in stage.recipe.teachers]
    if experiment.recipe.data.surrogate is not None and all(spec.ready for spec in teachers):
        return ("validation", "test")
    return ("train", "validation", "test")


def clean(folder: Path) -> None:
    """Delete temporary files that killed processes left in a run folder."""
    for path in (folder, folder / "checkpoint"):
        remove_temporary_files(path)


class Lock:
    """Lock of a run folder: two processes must not write to it at the same time.

    The operating system gives it back when the process ends, however that happens.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._descriptor: int | None = None

    def take(self) -> None:
        """Lock the folder.

        Raises:
            RuntimeError: if another process holds the lock.
        """
        try:
            import fcntl
        except ImportError:  # not there on Windows
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise RuntimeError(
                f"{self.path.parent.parent}: another process is working on this run. Wait for its "
                "end or stop it, then go on with --resume"
            ) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _models(value: Any, path: str) -> Iterator[tuple[str, ModelConfig]]:
    """Every network that a recipe describes, with its path."""
    if isinstance(value, ModelConfig):
        yield path, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _models(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _models(item, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _models(item, f"{path}.{index}")


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Paths of the values in which two nested values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differences(f"{path}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{path}.{index}", before, after)
    elif old != new:
        yield path, old, new


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
