"""The tasks of the package satisfy each contract; a violation is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Batch, Outputs
from instil.tasks.classification import Classification
from instil.testing import check_task
from tests.tasks.samples import images


@pytest.mark.parametrize("kind", ["single", "multi", "binary"])
def test_ours_holds(kind: str) -> None:
    check_task(lambda: Classification(kind), images(kind))


def test_half_of_the_labels_missing() -> None:
    batch = images()
    batch["label"][1::2] = -100
    check_task(Classification, batch)


class Broken(Classification):
    card = None  # type: ignore[assignment]


class NoLogits(Broken):
    @staticmethod
    def call(model: nn.Module, batch: Batch) -> Outputs:
        return {"answer": model(batch["image"])}


class OneRow(Broken):
    @staticmethod
    def call(model: nn.Module, batch: Batch) -> Outputs:
        return {"logits": model(batch["image"])[:1]}


class Tensors(Broken):
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        metrics, details = super().evaluate(*args, **kwargs)
        return {name: torch.tensor(value) for name, value in metrics.items()}, details


class Percent(Broken):
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        metrics, details = super().evaluate(*args, **kwargs)
        return metrics | {"accuracy": 100 * metrics["accuracy"] + 1.5}, details


class SecondGuess(Broken):
    def evaluate(self, net: nn.Module, batches: Any, teacher: Any = None) -> Any:
        metrics, details = super().evaluate(net, batches, teacher)
        return metrics | {"accuracy": 0.5 * metrics["accuracy"]}, details


class LeavesEval(Broken):
    def evaluate(self, net: nn.Module, batches: Any, teacher: Any = None) -> Any:
        return super().evaluate(net.eval(), batches, teacher)


class Draws(Broken):
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        torch.rand(1)
        return super().evaluate(*args, **kwargs)


class Trains(Broken):
    def evaluate(self, net: nn.Module, batches: Any, teacher: Any = None) -> Any:
        for batch in batches:
            net.train()(batch)
        return super().evaluate(net, batches, teacher)


class CountsTheUnlabelled(Broken):
    def evaluate(self, net: nn.Module, batches: Any, teacher: Any = None) -> Any:
        return super().evaluate(
            net, [batch | {"label": batch["label"].clamp_min(0)} for batch in batches], teacher
        )


class MeanOfMeans(Broken):
    def evaluate(self, net: nn.Module, batches: Any, teacher: Any = None) -> Any:
        several = [super(MeanOfMeans, self).evaluate(net, [batch], teacher)[0] for batch in batches]
        return {name: sum(one[name] for one in several) / len(several) for name in several[0]}, {}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (NoLogits, "call returns its roles: .*call returns answer, without logits"),
        (OneRow, r"call returns its roles: .*call returns logits \(1, 4\) for 12 samples"),
        (Tensors, "metrics are floats: .*metric 'accuracy' is a Tensor, not a float"),
        (Percent, r"metrics are floats: .*accuracy is .*, not in \[0, 1\]"),
        (SecondGuess, "perfect logits: .*accuracy is 0.5, not 1.0"),
        (LeavesEval, "evaluation changes no state: .*the mode of a module"),
        (Draws, "evaluation changes no state: .*the random state changed"),
        (Trains, "evaluation changes no state: "),
        (CountsTheUnlabelled, "only labelled items count: .*an unlabelled item changes '"),
        (MeanOfMeans, "batch size does not matter: .*the split into batches changes '"),
    ],
)
def test_a_broken_one_is_named(task: Callable[[], Any], message: str) -> None:
    with pytest.raises(AssertionError, match=f"^{message}"):
        check_task(task, images())
