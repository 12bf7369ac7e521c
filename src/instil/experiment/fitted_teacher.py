"""Training of a teacher by its own ``fit`` instead of gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from instil.core import Net
from instil.experiment.experiment import Experiment
from instil.networks.sklearn_model import SklearnModel
from instil.recipe.errors import RecipeError, error_context


def fit_teacher(experiment: Experiment, net: Net) -> None:
    """Fit a teacher on the training samples, each in one view without augmentation.

    Args:
        experiment: data of the teacher.
        net: the teacher; its model gets the inputs that the task gives it.

    Raises:
        RecipeError: if the data or their labels do not fit.
    """
    model = net.model
    assert isinstance(model, SklearnModel)
    labels: list[Tensor] = []
    with error_context("teacher"), torch.no_grad():
        with recorded_inputs(net) as inputs:
            for batch in experiment.loader(experiment.splits.train, shuffle=False):
                net(batch)
                labels.append(batch["label"])
        model.fit(torch.cat(inputs), torch.cat(labels))


def check_estimator_kind(model: nn.Module, kind: str, spec: str, path: str) -> None:
    """Check that an estimator predicts what the labels are: classes or numbers.

    Args:
        model: model of a network; one without an estimator is not checked.
        kind: kind of the labels.
        spec: model as the recipe names it.
        path: recipe path of the model.

    Raises:
        RecipeError: for a regressor of classes, and a classifier of numbers.
    """
    if not isinstance(model, SklearnModel) or model.predicts_numbers == (kind == "real"):
        return
    labels, expected = "classes", "classifier, such as sklearn:RandomForestClassifier"
    if kind == "real":
        labels, expected = "numbers", "regressor, such as sklearn:RandomForestRegressor"
    raise RecipeError(f"{path}: {spec} does not predict {labels}. Expected a {expected}")


@contextmanager
def recorded_inputs(net: Net) -> Iterator[list[Tensor]]:
    """Record the first input of a network's model, on the CPU, in each call within the context."""
    inputs: list[Tensor] = []

    def keep_input(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append(arguments[0].cpu())

    handle = net.model.register_forward_pre_hook(keep_input)
    try:
        yield inputs
    finally:
        handle.remove()
