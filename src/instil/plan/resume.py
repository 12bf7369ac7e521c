"""State of a run folder: recipe and inputs of the run, and checks before it starts or resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from instil import recipe as recipes
from instil.experiment.experiment import Experiment
from instil.files.atomic import remove_temporary_files
from instil.files.checksums import file_sha256
from instil.files.folders import check_folder
from instil.files.locks import FileLock
from instil.plan.fingerprints import VERSION_INPUT, input_fingerprints
from instil.plan.run_folder import RunFolder
from instil.recipe import to_yaml
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe

STATE = "checkpoint/run.json"
LOCK = "checkpoint/lock"
CHANGEABLE = ("seeds", "baselines", "exported_arm", "export", "device", "search")
"""Keys of a recipe that may change on --resume: they do not change finished students."""


class RunState(BaseModel):
    """Content of ``checkpoint/run.json``.

    Attributes:
        recipes: SHA-256 of the recipe files that the run may have.
        inputs: fingerprints of data, code and weights, by their description.
    """

    model_config = ConfigDict(extra="forbid")

    recipes: list[str]
    inputs: dict[str, str]


def check_new(out: Path) -> None:
    """Check that a new run may use a folder.

    Args:
        out: run folder; it need not exist.

    Raises:
        FileExistsError: if it holds a run or any other file.
        NotADirectoryError: if it, or a part of its path, is a file.
    """
    check_folder(out)
    if not out.exists():
        return
    if (out / "recipe.yaml").exists():
        raise FileExistsError(
            f"{out} already holds a run; continue it (--resume {out}) or use another --out"
        )
    # A run that was stopped before it wrote its recipe leaves these two.
    own = {out / STATE, out / LOCK, out / "checkpoint"}
    if other := sorted(path for path in out.rglob("*") if path not in own):
        raise FileExistsError(
            f"--out: {out} is not empty. Expected a new or an empty folder, got one with "
            f"'{other[0].relative_to(out)}'. Use another --out"
        )


def check_resumable(recipe: Recipe, folder: Path) -> None:
    """Check that a run may continue with a recipe.

    Args:
        recipe: recipe with the changes of the command line.
        folder: run folder.

    Raises:
        FileNotFoundError: if the folder holds no run.
        ValueError: if the recipe differs from that of the run, or its file was edited.
    """
    if not (folder / "recipe.yaml").exists():
        raise FileNotFoundError(f"{folder} holds no run to continue: it has no recipe.yaml")
    before = recipes.load(folder)
    for key in Recipe.model_fields:
        if key in CHANGEABLE or getattr(before, key) == getattr(recipe, key):
            continue
        dumps = (one.model_dump(mode="json")[key] for one in (before, recipe))
        path, old, new = next(_differences(key, *dumps), (key, None, None))
        raise ValueError(
            f"{path} differs from the recipe of the run in {folder}. Expected {_short(old)}, got "
            f"{_short(new)}. Continue without the change, or start another run (--out)"
        )
    check_recipe_file(folder)


def check_recipe_file(folder: Path) -> None:
    """Compare the recipe of a run with the checksum in ``checkpoint/run.json``, if there is one.

    Args:
        folder: run folder.

    Raises:
        ValueError: if the recipe was edited or damaged.
    """
    state = read(RunFolder(folder))
    if state is not None and file_sha256(folder / "recipe.yaml") not in state.recipes:
        raise ValueError(
            f"{folder / 'recipe.yaml'}: the file was edited or damaged after the run started. "
            "Restore it; change seeds, baselines and export on the command line "
            f"(instil run --resume {folder} seeds=[0,1])"
        )


def read(folder: RunFolder) -> RunState | None:
    """Read the state of a run; None if it has not been written yet.

    Raises:
        ValueError: if the file is damaged.
    """
    remedy = "The run cannot continue; start another one (--out)"
    content = folder.read_json(STATE, remedy)
    if content is None:
        return None
    try:
        return RunState.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{folder.path / STATE}: {where}: {problem['msg']}. {remedy}.") from None


def write(folder: RunFolder, experiment: Experiment) -> None:
    """Write the state of a run, and its recipe.

    Args:
        folder: run folder.
        experiment: recipe and data.

    Raises:
        RecipeError: if data, code or weights have changed since the run started.
    """
    recipe = to_yaml(experiment.recipe)
    inputs = input_fingerprints(experiment)
    before = read(folder)
    if before is not None:
        # A run of an earlier version has no fingerprints of teacher.data and data.surrogate. Its
        # finished students may have other outputs if it lacks the version of the outputs, too.
        for name in {**before.inputs, VERSION_INPUT: ""}:
            if before.inputs.get(name) != inputs.get(name):
                raise RecipeError(
                    f"{name}: changed since the run in {folder.path} started. Expected the same "
                    "content: finished students could not be compared with new ones. Restore it, "
                    "or start another run (--out)"
                )
    digest = hashlib.sha256(recipe.encode()).hexdigest()
    # Both recipes are valid until the file is replaced: a process may be killed in between.
    older = [] if before is None else before.recipes
    folder.write_json(STATE, {"recipes": [*older[-1:], digest], "inputs": inputs})
    folder.write("recipe.yaml", recipe)
    folder.write_json(STATE, {"recipes": [digest], "inputs": inputs})


def clean(folder: Path) -> None:
    """Delete temporary files that killed processes have left in a run folder."""
    for path in (folder, folder / "checkpoint"):
        remove_temporary_files(path)


def run_lock(folder: Path) -> FileLock:
    """Return the lock of a run folder, which two processes must not write to at the same time."""
    return FileLock(folder / LOCK)


def acquire(lock: FileLock) -> None:
    """Take the lock of a run folder.

    Raises:
        RuntimeError: if another process holds it.
    """
    if not lock.try_acquire():
        raise RuntimeError(
            f"{lock.path.parent.parent}: another process is working on this run. Wait for its end "
            "or stop it, then continue with --resume"
        )


def _differences(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old and new value of every difference between two nested values."""
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
