"""Stages of a recipe: trainings one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instil.cards.closest import suggestion, unknown_option
from instil.recipe.checking import parse_recipe, validation_errors
from instil.recipe.defaults import SOURCE_KEYS, resolve_defaults
from instil.recipe.overrides import REPLACED, merge
from instil.recipe.sections import Recipe

MAX_REPEATS = 10_000  # each repeat becomes a recipe of its own
STAGE_KEYS = (
    "name",
    "data",
    "teacher",
    "ensemble",
    "student",
    "scheme",
    "objectives",
    "train",
    "repeat",
)


def stages(recipe: Recipe) -> list[Recipe]:
    """Return one recipe per stage, with repeats; the recipe itself if it has no stages."""
    whole = recipe.model_dump(mode="json")
    if recipe.student.rounds > 1:
        whole["stages"] = round_stages(whole)
    staged = _stage_recipes(whole)
    return [parse_recipe(stage) for _, stage in staged] or [recipe]


def origin_stage(stages: Sequence[Recipe], index: int = -1) -> int:
    """Return the index of the stage in which the student of a stage was built.

    Args:
        stages: recipes of all stages.
        index: index of the stage. Default: the last.
    """
    return student_stages(stages, index)[0]


def student_stages(stages: Sequence[Recipe], index: int = -1) -> list[int]:
    """Return the indices of the stages that train the student of a stage, in order.

    Args:
        stages: recipes of all stages.
        index: index of the stage. Default: the last.
    """
    index %= len(stages)
    student = stages[index].student
    if not student.earlier:
        return [index]
    return [*student_stages(stages, earlier_stage(stages, index, student.model)), index]


def earlier_stage(stages: Sequence[Recipe], index: int, model: str) -> int:
    """Return the index of the stage whose student a network of a stage is.

    Args:
        stages: recipes of all stages.
        index: index of the stage that uses the network.
        model: ``previous``, or ``stage:NAME`` for the last earlier stage of that name.
    """
    if model == "previous":
        return index - 1
    return max(i for i in range(index) if model == f"stage:{stages[i].name}")


def _stage_recipes(whole: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield index and resolved recipe of each stage."""
    for index, stage in enumerate(whole.get("stages") or []):
        changes = {key: value for key, value in stage.items() if key != "repeat"}
        # Resolved again: defaults depend on the sections that the stage replaces.
        base = dict(whole) | {"data": _inherited_data(whole.get("data"), stage.get("data"))}
        merged = resolve_defaults(merge(base, changes, REPLACED) | {"stages": []})
        yield from [(index, merged)] * stage.get("repeat", 1)


def round_stages(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return plain data of the stages in which a student is pruned in rounds.

    Each round removes the same share of what is left, so that all rounds together remove the share
    of ``changes.prune``. Changes before ``prune`` belong to the first round, later ones to the
    last.

    Args:
        whole: plain data of a checked recipe whose student has ``rounds``.
    """
    student = dict(whole["student"])
    changes = dict(student["changes"])
    rounds = student.pop("rounds")
    names = list(changes)
    position = names.index("prune")
    share = 1 - (1 - changes["prune"]["share"]) ** (1 / rounds)
    cut = {"prune": {**changes["prune"], "share": share}}
    stages = []
    for index in range(rounds):
        own = {name: changes[name] for name in names[:position]} if index == 0 else {}
        own |= cut
        if index == rounds - 1:
            own |= {name: changes[name] for name in names[position + 1 :]}
        base = student if index == 0 else {"model": "previous", "freeze": student["freeze"]}
        train = _part_of_training(whole["train"], index, rounds)
        stages.append({"student": {**base, "changes": own}, "train": train})
    return stages


def _part_of_training(train: Mapping[str, Any], index: int, rounds: int) -> dict[str, Any]:
    """Return the length of one round; the last one has the remainder."""
    key = "steps" if train.get("steps") is not None else "epochs"
    part: dict[str, Any] = {key: _share(train[key], index, rounds)}
    schedule = train.get("schedule")
    if isinstance(schedule, Mapping) and "length" in schedule:
        part["schedule"] = {**schedule, "length": max(1, _share(schedule["length"], index, rounds))}
    return part


def _share(length: int, index: int, rounds: int) -> int:
    return length // rounds + (length % rounds if index == rounds - 1 else 0)


def round_errors(recipe: Recipe) -> list[str]:
    """Return the errors in the rounds of a student that its own section does not show."""
    rounds = recipe.student.rounds
    if rounds == 1:
        return []
    if recipe.stages:
        return ["student.rounds: not with stages. Expected rounds or stages. Leave one of them out"]
    share = recipe.student.changes["prune"].get("share")
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        return [f"student.changes.prune.share: expected a number between 0 and 1, got {share!r}"]
    length = recipe.train.steps or recipe.train.epochs or 0
    if length < rounds:
        unit = "steps" if recipe.train.steps else "epochs"
        return [
            f"student.rounds: the training is too short. Expected at most {length} rounds, one for "
            f"each of the {unit}, got {rounds}"
        ]
    return []


def _inherited_data(data: Any, changes: Any) -> Any:
    """Return the keys of the recipe's data that a stage with these changes inherits."""
    if not isinstance(data, Mapping) or not isinstance(changes, Mapping):
        return data
    # Options and classes of one source mean nothing to another.
    if changes.get("name", data.get("name")) == data.get("name"):
        return data
    return {key: value for key, value in data.items() if key in SOURCE_KEYS}


def stage_errors(whole: Mapping[str, Any]) -> list[str]:
    """Return the errors in stages: in their keys, and in the sections that they change."""
    entries = whole.get("stages") or []
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        return []  # the validation of the sections reports it
    lines = []
    for index in range(len(entries)):
        lines += [f"stages.{index}.{line}" for line in _key_errors(entries, index)]
    if lines:
        return lines
    for index, errors in {
        i: validation_errors(stage) for i, stage in _stage_recipes(whole)
    }.items():
        for line in errors:
            # Errors in other sections are those of the recipe itself.
            if line.partition(":")[0].split(".")[0] in entries[index]:
                lines.append(f"stages.{index}.{line}")
    return lines


def _key_errors(entries: Sequence[Mapping[str, Any]], index: int) -> Iterator[str]:
    """Yield the errors in the keys of one stage."""
    stage = entries[index]
    for key in stage:
        if key not in STAGE_KEYS:
            yield f"{key}: {unknown_option(key, 'A stage', STAGE_KEYS)}"
    repeat = stage.get("repeat", 1)
    is_integer = isinstance(repeat, int) and not isinstance(repeat, bool)
    if not is_integer or not 1 <= repeat <= MAX_REPEATS:
        yield (
            f"repeat: a number of at least 1 and at most {MAX_REPEATS} was expected, not {repeat!r}"
        )
    earlier_names = [entry["name"] for entry in entries[:index] if "name" in entry]
    if "name" in stage:
        name = stage["name"]
        if not isinstance(name, str) or name in earlier_names:
            yield f"name: a text that no other stage has was expected, not {name!r}"
    yield from reference_errors(stage, [str(name) for name in earlier_names] if index else None)


def reference_errors(
    section: Mapping[str, Any], earlier_names: Sequence[str] | None = None
) -> list[str]:
    """Return the errors in references to networks of earlier stages.

    Args:
        section: plain data of a recipe or of a stage.
        earlier_names: names of the earlier stages. None: there is no earlier stage.
    """
    lines = []
    for side in ("teacher", "student"):
        entry = section.get(side)
        entries = {side: entry}
        if isinstance(entry, list):
            entries = {f"{side}.{index}": member for index, member in enumerate(entry)}
        for path, member in entries.items():
            model = member.get("model") if isinstance(member, Mapping) else None
            message = _reference_error(model, earlier_names)
            if message:
                lines.append(f"{path}.model: {message}")
    return lines


def _reference_error(model: Any, earlier_names: Sequence[str] | None) -> str:
    """Return the error of one reference; empty if there is none."""
    if model == "previous" and earlier_names is None:
        return "'previous' is the network of the previous stage, but this is the first stage"
    if not isinstance(model, str) or not model.startswith("stage:"):
        return ""
    name = model.removeprefix("stage:")
    if name in (earlier_names or ()):
        return ""
    hint = suggestion(name, earlier_names or ())
    return f"no earlier stage has the name '{name}'.{hint}"
