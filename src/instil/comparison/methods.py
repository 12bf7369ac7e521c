"""Name of the method of a recipe, and its position on the axes of the survey."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from instil import catalogue
from instil.comparison.results import Axes

RecipeData = Mapping[str, Any]


def method_parts(recipe: RecipeData) -> tuple[list[str], list[str], list[str]]:
    """Return the objectives, schemes and teachers of a recipe with its stages, by type.

    Args:
        recipe: resolved recipe as plain data.
    """
    objectives: dict[str, None] = {}
    schemes: dict[str, None] = {}
    teachers: dict[str, None] = {}
    for stage in (recipe, *(recipe.get("stages") or ())):
        for name, options in (stage.get("objectives") or {}).items():
            objectives[_type(options, name)] = None
        if stage.get("scheme"):
            schemes[_type(stage["scheme"], "")] = None
        if stage.get("ensemble"):
            teachers[_type(stage["ensemble"], "ensemble")] = None
    return list(objectives), list(schemes), list(teachers)


def method_name(recipe: RecipeData) -> str:
    """Return the name of the method that a recipe trains, such as ``review_kd + kd``.

    Losses on labels are left out if there are others. A scheme other than ``offline`` comes first.
    """
    objectives, schemes, _ = method_parts(recipe)
    sources = {name: _card("objective", name).get("source") for name in objectives}
    distilling = [name for name in objectives if sources[name] != "labels"]
    parts = [name for name in schemes if name not in ("", "offline")]
    return " + ".join([*parts, *(distilling or objectives)]) or "offline"


def survey_axes(
    objectives: Iterable[str], schemes: Iterable[str] = (), teachers: Iterable[str] = ()
) -> Axes:
    """Return the axes of objectives, schemes and teachers, from their cards.

    Args:
        objectives: names of objectives.
        schemes: names of schemes.
        teachers: names of kinds of teacher.
    """
    sources: dict[str, None] = {}
    arrangements: dict[str, None] = {}
    algorithms: dict[str, None] = {}
    for kind, names, target in (
        ("objective", objectives, sources),
        ("scheme", schemes, arrangements),
        ("teacher", teachers, {}),
    ):
        for name in names:
            card = _card(kind, name)
            target |= dict.fromkeys([card["source"]] if card.get("source") else ())
            algorithms |= dict.fromkeys(card.get("algorithms", ()))
    distilling = tuple(name for name in sources if name != "labels")
    return Axes(distilling or tuple(sources), tuple(arrangements), tuple(algorithms))


def network_text(net: Mapping[str, Any] | list[Any] | str | None) -> str:
    """Return a network of a recipe in words, such as ``networks:cnn (width=6)``.

    Args:
        net: section of the network, a short form such as ``previous``, or a list of these.
    """
    if not net:
        return ""
    if isinstance(net, list):
        return " + ".join(network_text(one) for one in net)
    if isinstance(net, str):
        return net
    options = dict(net.get("options") or {}) | dict(net.get("changes") or {})
    details = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"{net.get('model')} ({details})" if details else str(net.get("model"))


def teacher_training_text(recipe: RecipeData) -> str:
    """Return the length of the training of a teacher; empty for teachers that have weights."""
    section = recipe.get("teacher")
    teachers = section if isinstance(section, list) else [section]
    is_trained = any(isinstance(one, dict) and not one.get("weights") for one in teachers)
    train = recipe.get("teacher_train") or recipe.get("train") or {}
    return _length(train) if is_trained and not recipe.get("stages") else ""


def training_text(recipe: RecipeData) -> str:
    """Return the length of the training in words, such as ``20 epochs``."""
    lengths = []
    for stage in recipe.get("stages") or [recipe]:
        train = (recipe.get("train") or {}) | (stage.get("train") or {})
        lengths.append(_length(train))
    return ", ".join(lengths)


def _length(train: Mapping[str, Any]) -> str:
    unit = "steps" if train.get("steps") else "epochs"
    return f"{train.get(unit)} {unit}"


def _type(options: Any, name: str) -> str:
    """Return the type of a section, which a short form may leave out."""
    if isinstance(options, str):
        return options
    return str((options or {}).get("type", name))


def _card(kind: str, name: str) -> dict[str, Any]:
    """Return the card of a method; empty for one that is not installed here."""
    try:
        return catalogue.describe(kind, name)
    except (ValueError, KeyError, AttributeError):
        return {}
