"""Image regression: one or several real numbers per image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, to_float32
from instil.tasks.bases.checks import check_real_objectives
from instil.tasks.bases.task import Evaluation, LabelKind, Task
from instil.tasks.classification import Classification, call


class Regression(Classification):
    """Image regression; ``logits`` (N, D) are the predicted numbers.

    Labels are float (N, D); -100 or NaN for an unknown number.

    Args:
        kind: kind of the labels: ``real``.
    """

    card = Card("Image regression", tasks=("regression",))
    title = "regression"
    kinds = ("real",)
    label_objectives = ("mean_squared_error",)
    headline = "r2"
    baselines: ClassVar = {"real": ("alone",)}
    call = staticmethod(call)

    def __init__(self, kind: LabelKind = "real"):
        super().__init__(kind)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """Raise ValueError for an objective of logits or labels that is undefined for numbers."""
        check_real_objectives(objectives, self.title)

    def check_data(self, batch: Batch) -> None:
        # The base class of classification expects classes.
        Task.check_data(self, batch)
        label = batch["label"]
        if label.ndim != 2 or not label.is_floating_point():
            raise ValueError(
                f"regression needs real labels (N, D); these are {label.dtype} of the shape "
                f"{tuple(label.shape)}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """Compute metrics of a regression network in eval mode.

        Metrics, over the known labels:

        - ``r2``: coefficient of determination, averaged over the outputs;
        - ``mae`` and ``loss``: mean absolute and mean squared error;
        - ``agreement``: ``r2`` with the teacher's outputs in place of the labels.

        Args:
            net: network to evaluate.
            batches: batches of the test data; items with ``valid`` False are ignored.
            teacher: teacher for ``agreement``, if there is one.

        Raises:
            ValueError: if no output has two known labels, or an output is not finite.
        """
        collected: list[tuple[Tensor, ...]] = []
        for batch, outputs, teacher_outputs in self.iter_outputs(net, batches, teacher):
            parts = [to_float32(outputs["logits"]), batch["label"]]
            if teacher is not None:
                parts.append(teacher_outputs["logits"])
            if "valid" in batch:
                parts = [part[batch["valid"]] for part in parts]
            collected.append(tuple(parts))
        columns = [torch.cat(parts).double().cpu() for parts in zip(*collected, strict=True)]
        predictions, label, *others = columns
        label = label.reshape(predictions.shape)
        is_finite = predictions.isfinite().all(1)
        if not is_finite.all():
            raise ValueError(
                f"{int((~is_finite).sum())} of {len(predictions)} samples have outputs that are "
                "not finite"
            )
        is_labelled = (label != UNLABELLED) & ~label.isnan()
        error = (predictions - label)[is_labelled]
        metrics = {
            "r2": mean_r2(predictions, label, is_labelled),
            "mae": error.abs().mean().item(),
            "loss": error.square().mean().item(),
        }
        if others:
            metrics["agreement"] = mean_r2(predictions, others[0], torch.ones_like(is_labelled))
        return metrics, {}


def mean_r2(predictions: Tensor, label: Tensor, is_labelled: Tensor) -> float:
    """Return the coefficient of determination, averaged over the outputs.

    1 is perfect; 0 is as good as the mean of the labels.

    Args:
        predictions: (N, D).
        label: (N, D).
        is_labelled: boolean (N, D). An output with fewer than two labels is left out.

    Raises:
        ValueError: if every output is left out.
    """
    from torchmetrics.functional.regression import r2_score

    values = []
    for prediction, target, is_used in zip(predictions.T, label.T, is_labelled.T, strict=True):
        # The variance of the labels, by which R² divides, needs two of them.
        if is_used.sum() > 1:
            values.append(r2_score(prediction[is_used], target[is_used]))
    if not values:
        raise ValueError("no output to evaluate on has two known labels")
    return torch.stack(values).mean().item()
