"""Default learning rate of students that start from trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instil.data.paths import located
from instil.files.gguf_header import gguf_num_layers
from instil.recipe.sections import OptimizerConfig, Recipe

GENERAL = OptimizerConfig().lr
WHOLE_NET, FEW_LAYERS_CUT, ADAPTERS = 2e-5, 1e-4, 2e-4
"""Learning rates of AdamW for a whole pretrained language model, for one that has lost few of its
layers, and for LoRA adapters."""
# Measured: 29 of 30 layers learn best with 1e-4, 4 of 30 with 1e-3 (docs/language.md). Where
# between them the best rate changes is not measured.
FEW = 0.75
ADAMS = ("adam", "adamw")
CUTTING_NOTHING = {"lora", "lsq", "quantized"}
"""Changes after which the student still computes what its weights were trained for."""
DEPTH_OPTIONS = ("depth", "num_hidden_layers", "num_layers", "n_layer")
GGUF = ("gguf", "networks:gguf")


@dataclass(frozen=True)
class LearningRate:
    """A default and its reason, which ends a sentence that begins with the rate."""

    value: float
    reason: str


def default_learning_rate(recipe: Mapping[str, Any]) -> LearningRate | None:
    """Return the learning rate of a recipe that names none, None for the general default.

    It differs for a language model that starts from trained weights and loses no channel and few
    layers: the general rate destroys what these weights have learned. A student cut to a few layers
    starts from scratch and keeps the general rate.

    Args:
        recipe: the whole recipe as plain data, before its defaults are filled in.
    """
    train = recipe.get("train")
    student = recipe.get("student")
    task = recipe.get("task")
    if not all(isinstance(section, Mapping) for section in (train, student, task)):
        return None
    assert isinstance(train, Mapping)
    assert isinstance(student, Mapping)
    assert isinstance(task, Mapping)
    optimizer = train.get("optimizer") or {}
    if not isinstance(optimizer, Mapping) or "lr" in optimizer or recipe.get("stages"):
        return None
    is_adam = str(optimizer.get("type", OptimizerConfig().type)).lower() in ADAMS
    origin = _origin(student, recipe.get("teacher"))
    if task.get("name") != "language" or not is_adam or not _is_trained(origin):
        return None
    changes = student.get("changes") or {}
    if not isinstance(changes, Mapping):
        return None
    return _rate_of(changes, origin, Path(str(recipe.get("folder", "."))))


def _rate_of(
    changes: Mapping[str, Any], origin: Mapping[str, Any], folder: Path
) -> LearningRate | None:
    """The rate of a student that starts from the trained weights of ``origin``."""
    if not set(changes) <= {*CUTTING_NOTHING, "depth"}:
        return None
    share = 1.0 if "depth" not in changes else _share_of_layers(changes["depth"], origin, folder)
    if share is None or share < FEW:
        return None
    if "lora" in changes:
        return LearningRate(ADAPTERS, "only LoRA adapters of trained weights learn")
    if share < 1:
        reason = (
            f"the student starts from trained weights and keeps {100 * share:.0f} % of the layers"
        )
        return LearningRate(FEW_LAYERS_CUT, reason)
    return LearningRate(WHOLE_NET, "the student starts from trained weights and keeps all of them")


def learning_rate_note(recipe: Recipe, has_stages: bool = False) -> str:
    """One sentence: the learning rate of the student of a recipe, or of one stage, and its reason.

    Args:
        recipe: with all defaults filled in.
        has_stages: whether it is one stage of a recipe, which has the general default.
    """
    used = recipe.train.optimizer.lr
    plain = recipe.model_dump()
    plain["train"]["optimizer"].pop("lr")
    default = None if has_stages else default_learning_rate(plain)
    text = f"Learning rate of the student: {used:g} ({recipe.train.optimizer.type})"
    if default is not None and used == default.value:
        return f"{text}, because {default.reason}. train.optimizer.lr sets another one."
    if default is not None:
        return (
            f"{text}, as the recipe sets it. The default would be {default.value:g}: "
            f"{default.reason}."
        )
    if used != GENERAL:
        return f"{text}, as the recipe sets it."
    is_trained = _is_trained(_origin(plain["student"], plain["teacher"]))
    advice = (
        " The student starts from trained weights, which may need a smaller one."
        if is_trained
        else ""
    )
    return f"{text}, the general default.{advice} train.optimizer.lr sets another one."


def _share_of_layers(change: Any, origin: Mapping[str, Any], folder: Path) -> float | None:
    """Share of the layers that the change ``depth`` keeps, None if their number is not known."""
    layers = change.get("layers") if isinstance(change, Mapping) else None
    total = _num_layers(origin, folder)
    if isinstance(layers, list) and layers and all(isinstance(layer, int) for layer in layers):
        # Without a known number the model has at least the layers up to the last one that is kept.
        return len(layers) / (total or max(layers) + 1)
    if isinstance(layers, int) and total:
        return layers / total
    return None


def _num_layers(origin: Mapping[str, Any], folder: Path) -> int | None:
    options = origin.get("options")
    if not isinstance(options, Mapping):
        return None
    if origin.get("model") in GGUF and isinstance(options.get("file"), str):
        try:
            return gguf_num_layers(located(options["file"], folder))
        except ValueError:  # a missing file is reported where the model is built
            return None
    depths = [options[name] for name in DEPTH_OPTIONS if isinstance(options.get(name), int)]
    return depths[0] if depths else None


def _origin(student: Mapping[str, Any], teacher: Any) -> Any:
    """The entry whose weights the student starts from: its own, or that of the first teacher."""
    if student.get("model") != "teacher":
        return student
    return teacher[0] if isinstance(teacher, list) and teacher else teacher


def _is_trained(model: Any) -> bool:
    if not isinstance(model, Mapping):
        return False
    has_weights = model.get("weights") is not None or model.get("is_trained")
    return bool(has_weights or model.get("pretrained") or model.get("model") in GGUF)
