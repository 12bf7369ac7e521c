"""The recipe: what to train, from whom, on what and how; YAML in, checked sections out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from instil import catalogue
from instil.catalogue.signatures import defaults, plain
from instil.catalogue.user_code import UntrustedCode
from instil.core import closest
from instil.recipe.checking import methods, read, wrong
from instil.recipe.errors import RecipeError, unknown
from instil.recipe.learning_rate import default_learning_rate
from instil.recipe.overrides import REPLACED, merge, override
from instil.recipe.packaged import find_packaged, is_packaged, packaged_recipes
from instil.recipe.renamed import renamed_keys
from instil.recipe.sections import Recipe
from instil.recipe.yaml_text import check_keys, read_yaml

BASELINES = ("alone",)
MOST_REPEATS = 10_000  # of a stage; each becomes a recipe of its own
WITHOUT_DATA = ("noise", "blobs")
STAGE = (
    "name",
    "data",
    "teacher",
    "together",
    "student",
    "scheme",
    "objectives",
    "train",
    "repeat",
)
SHORT = (
    ("task", "name"),
    ("data", "name"),
    ("scheme", "type"),
    ("balance", "type"),
    ("together", "type"),
    ("student", "model"),
    ("teacher", "model"),
)
"""Sections of which one key may stand for the whole."""
STAGE_DATA = ("images", "num_labeled", "batch_size", "sampler", "workers", "augment")


def load(where: str | Path, overrides: Iterable[str] = (), trust_code: bool = True) -> Recipe:
    """A recipe from a YAML file, a run folder, or the package's own by name, with ``key=value`` overrides.

    The modules of ``imports`` are executed; without ``trust_code`` a recipe that has any is refused.

    Raises RecipeError with one line a problem, FileNotFoundError for a path that leads nowhere,
    UntrustedCode for a recipe with ``imports`` that is not trusted.
    """
    path = _find(where)
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping with the keys data, student, objectives ..., not {data!r}"
        )
    data = _long(data)
    for change in overrides:  # one after another: scheme=on_policy makes room for scheme.share=1
        data = _long(override(data, [change]))
    folder = "." if is_packaged(path) else str(path.resolve().parent)
    data = {"name": path.stem, "folder": folder} | data
    if data.get("imports") and not trust_code:
        raise UntrustedCode(f"{path}: imports", _listed(data["imports"]), Path(str(data["folder"])))
    return build(data)


def _listed(imports: Any) -> str:
    return ", ".join(map(str, imports)) if isinstance(imports, list) else str(imports)


def _find(where: str | Path) -> Path:
    path = Path(where)
    if path.is_dir():
        path = path / "recipe.yaml"
    if path.is_file():
        return path
    if str(where) in packaged_recipes():
        return find_packaged(str(where))
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        near = (
            [file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml")]
            if path.parent.is_dir()
            else []
        )
        raise FileNotFoundError(f"there is no recipe {path}; {closest(path.name, near)}")
    return find_packaged(str(where))


def build(data: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data: what was left out is filled in, everything is checked, all problems are told at once."""
    check_keys(data, "recipe")
    data = _long(data)
    if isinstance(data.get("imports"), list):
        _import(data["imports"], Path(data.get("folder", ".")))
    whole = _resolved(data)
    told: dict[str, str] = {}  # one line a place
    for line in "\n".join(
        [
            *renamed_keys(whole),
            *wrong(whole),
            *_no_stage_before(whole),
            *_wrong_stages(whole),
        ]
    ).splitlines():
        told.setdefault(line.partition(": ")[0], line)
    lines = [
        line
        for place, line in told.items()
        if place.removeprefix("teacher_") not in told or not place.startswith("teacher_train.")
    ]
    if lines:  # what is wrong in train is wrong in teacher_train, which is made from it: told once
        raise RecipeError("\n".join(lines))
    return read(whole)


def _import(names: list[Any], folder: Path) -> None:
    try:
        catalogue.add([str(name) for name in names], folder)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _no_stage_before(whole: Mapping[str, Any], before: Sequence[str] | None = None) -> list[str]:
    """The nets of earlier stages that there are not; ``before``: the names of these stages, None where there is none."""
    found = []
    for side in ("teacher", "student"):
        several = isinstance(whole.get(side), list)
        for number, spec in enumerate(whole[side] if several else [whole.get(side)]):
            model = spec.get("model") if isinstance(spec, Mapping) else None
            path = f"{side}.{number}.model" if several else f"{side}.model"
            if model == "previous" and before is None:
                found.append(
                    f"{path}: 'previous' is the net of the stage before, and there is none"
                )
            if (
                isinstance(model, str)
                and model.startswith("stage:")
                and (name := model.removeprefix("stage:")) not in (before or ())
            ):
                found.append(
                    f"{path}: no stage before this one has the name '{name}'; {closest(name, before or ())}"
                )
    return found


def stages(recipe: Recipe) -> list[Recipe]:
    """One recipe for each stage, repeats written out; the recipe itself where it has no stages. A net of a stage may be ``previous``."""
    return [read(stage) for _, stage in _staged(recipe.model_dump(mode="json"))] or [recipe]


def origin(stages: Sequence[Recipe], number: int = -1) -> int:
    """The stage in which the student of stage ``number`` (by default the last) was built, not taken from an earlier one."""
    number %= len(stages)
    model = stages[number].student.model
    if not stages[number].student.earlier:
        return number
    named = [earlier for earlier in range(number) if model == f"stage:{stages[earlier].name}"]
    return origin(stages, number - 1 if model == "previous" else named[-1])


def _staged(whole: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and resolved recipe of each stage."""
    for number, stage in enumerate(whole.get("stages") or []):
        changes = {key: value for key, value in stage.items() if key != "repeat"}
        merged = _resolved(merge(whole, changes, REPLACED) | {"stages": []})
        yield from [(number, merged)] * stage.get("repeat", 1)


def _wrong_stages(whole: Mapping[str, Any]) -> list[str]:
    """What is wrong with the stages: their keys, and in the merged recipe what stands in a section that they change."""
    given = whole.get("stages") or []
    if not isinstance(given, list) or not all(isinstance(stage, Mapping) for stage in given):
        return []  # told by the sections
    found = [
        f"stages.{n}.{key}: {unknown(key, 'a stage', STAGE)}"
        for n, stage in enumerate(given)
        for key in stage
        if key not in STAGE
    ]
    for number, stage in enumerate(given):
        other = (
            [key for key in stage.get("data") or () if key not in STAGE_DATA]
            if isinstance(stage.get("data"), Mapping)
            else []
        )
        found += [
            f"stages.{number}.data.{key}: all stages learn from the recipe's data; one may change {', '.join(STAGE_DATA)}"
            for key in other
        ]
        repeat = stage.get("repeat", 1)
        if (
            isinstance(repeat, bool)
            or not isinstance(repeat, int)
            or not 1 <= repeat <= MOST_REPEATS
        ):
            found.append(
                f"stages.{number}.repeat: a number of at least 1 and at most {MOST_REPEATS} was"
                f" expected, not {repeat!r}"
            )
        if "name" in stage and (
            not isinstance(stage["name"], str)
            or stage["name"] in [one.get("name") for one in given[:number]]
        ):
            found.append(
                f"stages.{number}.name: a text that no other stage has was expected, not {stage['name']!r}"
            )
        before = [str(one["name"]) for one in given[:number] if "name" in one] if number else None
        found += [f"stages.{number}.{line}" for line in _no_stage_before(stage, before)]
    if found:
        return found
    lines = {number: wrong(stage) for number, stage in _staged(whole)}
    return [
        f"stages.{n}.{line}"
        for n, told in lines.items()
        for line in told
        if line.partition(":")[0].split(".")[0] in given[n]
    ]


def _long(data: Mapping[str, Any]) -> dict[str, Any]:
    """Short forms written out: ``task: name``, ``scheme: name``, ``student: model``, ``kd: 0.5`` (a weight), ``kd:`` (nothing to say)."""
    long = dict(data)
    for key, inside in SHORT:
        if isinstance(long.get(key), str):
            long[key] = {inside: long[key]}
    if isinstance(long.get("teacher"), list):
        long["teacher"] = [
            _long_teacher({"model": one} if isinstance(one, str) else one)
            for one in long["teacher"]
        ]
    elif "teacher" in long:
        long["teacher"] = _long_teacher(long["teacher"])
    if isinstance(long.get("data"), Mapping) and isinstance(long["data"].get("images"), str):
        long["data"] = {**long["data"], "images": {"name": long["data"]["images"]}}
    if isinstance(long.get("objectives"), Mapping):
        long["objectives"] = {
            name: _long_objective(one) for name, one in long["objectives"].items()
        }
    if isinstance(long.get("stages"), list):
        long["stages"] = [
            _long(stage) if isinstance(stage, Mapping) else stage for stage in long["stages"]
        ]
    return long


def _long_teacher(one: Any) -> Any:
    if not isinstance(one, Mapping):
        return one
    return {
        **one,
        **{
            key: {inside: one[key]}
            for key, inside in (("scheme", "type"), ("data", "name"))
            if isinstance(one.get(key), str)
        },
    }


def _long_objective(one: Any) -> Any:
    if one is None:
        return {}
    if isinstance(one, Mapping) and isinstance(one.get("sample_weight"), str):
        return {**one, "sample_weight": {"type": one["sample_weight"]}}
    return {"weight": one} if isinstance(one, (int, float)) and not isinstance(one, bool) else one


def _resolved(data: Mapping[str, Any]) -> dict[str, Any]:
    """What depends on other sections or on the machine, and the defaults of the methods."""
    whole: dict[str, Any] = {
        "task": {"name": "classification"},
        "scheme": {"type": "offline"},
        "train": {},
        "stages": [],
    } | dict(data)
    if isinstance(whole.get("objectives"), Mapping):
        whole["objectives"] = {
            name: {"type": name} | one if isinstance(one, dict) else one
            for name, one in whole["objectives"].items()
        }
    own = whole.get("teacher_train") or {}
    if (
        whole.get("teacher") is not None
        and isinstance(whole["train"], Mapping)
        and isinstance(own, Mapping)
    ):
        whole["teacher_train"] = merge(whole["train"], own)
    if (rate := default_learning_rate(whole)) is not None:
        whole["train"] = merge(whole["train"], {"optimizer": {"lr": rate.value}})
    task = _task(whole["task"])
    images = whole["data"].get("images") if isinstance(whole.get("data"), Mapping) else None
    if whole.get("baselines") is None and isinstance(images, Mapping):
        whole["baselines"] = [name for name in WITHOUT_DATA if name != images.get("name")]
    if (
        whole.get("baselines") is None
        and isinstance(whole.get("data"), Mapping)
        and whole["data"].get("num_labeled") == 0
    ):
        whole["baselines"] = []
    if whole.get("baselines") is None:
        kind = (
            whole["task"].get("kind", "single") if isinstance(whole["task"], Mapping) else "single"
        )
        whole["baselines"] = list(getattr(task, "baselines", {}).get(kind, BASELINES))
    if whole.get("export") is None:
        whole["export"] = getattr(task, "exports", True)
    for kind, name, options, path in list(methods(whole)):
        if kind != "optimizer" and name in catalogue.names(kind):
            whole = _filled(whole, path.split("."), defaults(catalogue.find(kind, name)) | options)
    return whole


def _filled(section: Any, path: list[str], options: Mapping[str, Any]) -> Any:
    """The section with these options at ``path``, of which numbers are places in a list; as it was where there is no such place."""
    if isinstance(section, list):
        return [
            _filled(one, path[1:], options) if str(number) == path[0] else one
            for number, one in enumerate(section)
        ]
    if not path:
        return {**section, **options}
    return {
        key: _filled(one, path[1:], options) if key == path[0] else one
        for key, one in section.items()
    }


def _task(section: Any) -> Any:
    """The class of the task that a section names; None where there is none."""
    name = section.get("name", "classification") if isinstance(section, Mapping) else section
    return (
        catalogue.find("task", name)
        if isinstance(name, str) and name in catalogue.names("task")
        else None
    )


def to_yaml(recipe: Recipe) -> str:
    """The whole recipe, with everything that was filled in, as YAML that ``load`` reads back to the same recipe."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120
    )


def fingerprint(*sections: BaseModel | Mapping[str, Any] | list[Any] | str | int | None) -> str:
    """16 hexadecimal digits that change where one of these parts does, and with nothing else."""
    parts = [
        section.model_dump(mode="json") if isinstance(section, BaseModel) else section
        for section in sections
    ]
    text = json.dumps(
        parts,
        sort_keys=True,
        default=lambda part: (
            part.model_dump(mode="json") if isinstance(part, BaseModel) else plain(part)
        ),
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
