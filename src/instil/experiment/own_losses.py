"""Losses that networks compute themselves: their labels, and checks before training."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from instil import catalogue
from instil.core import Batch, Net, Outputs, Scheme
from instil.data.labels import num_labelled
from instil.data.samples import Samples
from instil.data.streams import Stream
from instil.recipe.errors import RecipeError
from instil.recipe.sections import Recipe
from instil.tasks.bases.own_labels import label_parameter
from instil.tasks.bases.yolo_call import is_yolo

PROBLEM_TYPES = {"binary": "multi_label_classification", "real": "regression"}
"""Kinds of labels whose loss transformers cannot derive from their type, and its name there."""


def label_options(task: Any, recipe: Recipe) -> dict[str, Any]:
    """Return the options of a task's call for networks that compute their loss themselves.

    Args:
        task: task, or its class.
        recipe: recipe of the networks.
    """
    if "pass_labels" not in inspect.signature(task.call).parameters:
        return {}
    names = [*(config.type for config in recipe.objectives.values()), *task.label_objectives]
    reads_loss = any(_reads_loss(catalogue.find("objective", name)) for name in names)
    return {"pass_labels": True} if reads_loss else {}


def check_own_losses(scheme: Scheme, batch: Batch, samples: Samples) -> None:
    """Check that the student returns a loss in train mode, if an objective reads it.

    Args:
        scheme: prepared scheme.
        batch: a training batch.
        samples: training samples.

    Raises:
        RecipeError: without labels for the student, and for a student without a loss.
    """
    names = [name for name, objective in scheme.objectives.named() if _reads_loss(objective)]
    if not names:
        return
    path = f"objectives.{names[0]}"
    student = scheme.student
    title = type(student.model).__name__
    # The forward of a YOLO has no parameter for labels; its call passes them to the loss.
    if label_parameter(student.model) or is_yolo(student.model):
        _check_labels(path, title, samples)
        _check_problem_type(student.model, samples)
    outputs = _training_outputs(student, batch)
    if outputs.get("loss") is None:
        raise RecipeError(
            f"{path}: {title} returns no loss in train mode. Expected the role 'loss', got "
            f"{', '.join(map(str, outputs)) or 'nothing'}. Use a model with the parameter "
            "labels or targets, or another objective such as cross_entropy"
        )


def _reads_loss(objective: Any) -> bool:
    return any("loss" in roles for roles in objective.needs.get("student", ()))


def _check_labels(path: str, title: str, samples: Samples) -> None:
    # The labels of a stream are unknown before it is read.
    if isinstance(samples, Stream):
        return
    labelled = num_labelled(samples)
    if labelled < len(samples):
        raise RecipeError(
            f"{path}: {title} computes its loss from labels, and {len(samples) - labelled} of "
            f"{len(samples)} training {samples.noun}s have none. Expected a label for each. Remove "
            "them, or use another objective such as cross_entropy"
        )


def _check_problem_type(model: nn.Module, samples: Samples) -> None:
    """Check that a transformers model knows the loss for labels of an ambiguous type."""
    config: Any = getattr(model, "config", None)
    expected = PROBLEM_TYPES.get(samples.kind)
    if expected is None or not hasattr(config, "problem_type"):
        return
    if config.problem_type != expected:
        raise RecipeError(
            f"student.options.config.problem_type: wrong for labels of the kind '{samples.kind}'. "
            f"Expected {expected}, got {config.problem_type}"
        )


def _training_outputs(net: Net, batch: Batch) -> Outputs:
    """Outputs in train mode; state, modes and random state are restored."""
    try:
        with _train_mode(net):
            outputs: Outputs = net(batch)
    except Exception as error:  # a model of the user may raise anything
        raise RecipeError(
            f"student: {type(net.model).__name__} fails in train mode: {error}"
        ) from error
    return outputs


@contextlib.contextmanager
def _train_mode(net: Net) -> Iterator[None]:
    modes = {part: part.training for part in net.modules()}
    # BatchNorm changes its statistics in train mode.
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    devices = {p.device.index for p in net.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), torch.no_grad():
        net.train()
        try:
            yield
        finally:
            for name, buffer in net.named_buffers():
                buffer.copy_(buffers[name])
            for part, mode in modes.items():
                part.training = mode
