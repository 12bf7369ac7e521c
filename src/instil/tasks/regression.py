"""Images to real numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, LabelObjective, Objective, Objectives, to_float32
from instil.tasks.bases.task import Evaluation, Task
from instil.tasks.classification import Classification, call


class Regression(Classification):
    """What the loop and the command line ask of the task; ``logits`` (N, D) are the outputs themselves.

    Labels are float (N, D); -100 or NaN where one is unknown.
    """

    card = Card("Image regression", tasks=("regression",))
    title = "regression"
    kinds = ("real",)
    label_objectives = ("mean_squared_error",)
    headline = "r2"
    baselines: ClassVar = {"real": ("alone",)}
    call = staticmethod(call)

    def __init__(self, kind: str = "real"):
        super().__init__(kind)

    def check(self, objectives: Mapping[str, Objective] | Objectives) -> None:
        """ValueError for an objective of logits or labels that is not defined for real numbers."""
        super().check(
            {
                name: objective
                for name, objective in objectives.items()
                if isinstance(objective, Objective) and _of_outputs(objective)
            }
        )

    def check_data(self, batch: Batch) -> None:
        Task.check_data(self, batch)
        if batch["label"].ndim != 2 or not batch["label"].is_floating_point():
            raise ValueError(
                f"regression needs real labels (N, D); these are {batch['label'].dtype} of the shape {tuple(batch['label'].shape)}"
            )

    def evaluate(
        self, net: nn.Module, batches: Iterable[Any], teacher: nn.Module | None = None
    ) -> Evaluation:
        """``r2`` (coefficient of determination, the mean over the outputs), ``mae`` and ``loss`` (mean absolute and squared error) of what is known.

        ``agreement``: the teacher's outputs in place of the label, in ``r2``. Raises ValueError where no output is known twice, or one is not finite.
        """
        collected: list[tuple[Tensor, ...]] = []
        for batch, mine, theirs in self.iter_outputs(net, batches, teacher):
            rows = (
                to_float32(mine["logits"]),
                batch["label"],
                *([] if teacher is None else [theirs["logits"]]),
            )
            collected.append(
                tuple(part[batch["valid"]] if "valid" in batch else part for part in rows)
            )
        outputs, label, *others = (
            torch.cat(parts).double().cpu() for parts in zip(*collected, strict=True)
        )
        label = label.reshape(outputs.shape)
        if not outputs.isfinite().all():
            raise ValueError(
                f"{int((~outputs.isfinite()).any(1).sum())} of {len(outputs)} samples have outputs that are not finite"
            )
        known = (label != UNLABELLED) & ~label.isnan()
        error = (outputs - label)[known]
        metrics = {
            "r2": mean_r2(outputs, label, known),
            "mae": error.abs().mean().item(),
            "loss": error.square().mean().item(),
        }
        if others:
            metrics["agreement"] = mean_r2(outputs, others[0], torch.ones_like(known))
        return metrics, {}


def mean_r2(outputs: Tensor, label: Tensor, known: Tensor) -> float:
    """R² of outputs (N, D), averaged over those of which two or more labels are known; 1 is perfect, 0 as good as the mean of the labels."""
    from torchmetrics.functional.regression import r2_score

    columns = [
        (o[k], y[k]) for o, y, k in zip(outputs.T, label.T, known.T, strict=True) if k.sum() > 1
    ]
    if not columns:
        raise ValueError("no output to evaluate on has two known labels")
    return torch.stack([r2_score(o, y) for o, y in columns]).mean().item()


def _of_outputs(objective: Objective) -> bool:
    return isinstance(objective, LabelObjective) or any(
        "logits" in roles for needs in objective.needs.values() for roles in needs
    )
