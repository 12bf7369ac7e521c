"""Training of a student by its own ``fit`` instead of gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from instil.capabilities import GivesRealTargets, GivesSoftTargets
from instil.core import Batch, Objective, Objectives, Outputs, Scheme
from instil.engine import init_distributed
from instil.experiment.fitted_teacher import recorded_inputs
from instil.items import to_device
from instil.networks.sklearn_model import SklearnModel
from instil.recipe.errors import error_context

MIN_SHARE = 1e-5
"""Share of a row's weight below which a class is left out.

Estimators return exact zeros, whose logits have a floor; the copies of a row for such classes would
cost time and change nothing.
"""


def is_fitted_student(scheme: Scheme) -> bool:
    """Whether the student of a scheme is trained by its own ``fit``."""
    return isinstance(scheme.student.model, SklearnModel)


@dataclass(frozen=True)
class StudentFit:
    """Facts about a fit.

    Attributes:
        num_rows: number of samples that have a target.
        losses: mean of each loss on the training samples after the fit, by learner and name.
    """

    num_rows: int
    losses: dict[str, float]


def fit_student(scheme: Scheme, loader: Iterable[Batch], num_classes: int) -> StudentFit:
    """Fit the student of a scheme to the minimum of its objectives on all samples at once.

    The objectives of a classifier are cross-entropies with soft targets. A row is repeated once
    per class; the sample weight of a copy is the sum over the objectives of weight times target
    probability. The objectives of a regressor are squared errors. Its target is their weighted
    mean, and the sample weight is the sum of their weights. Sample weights have the mean 1 over
    the rows.

    Args:
        scheme: offline scheme with a ``SklearnModel`` as student.
        loader: batches of all training samples, each in one view without augmentation.
        num_classes: number of classes; not used by a regressor.

    Raises:
        RecipeError: if targets are not finite, or the estimator cannot be fitted.
    """
    model = scheme.student.model
    assert isinstance(model, SklearnModel)
    rows, teacher, batch = _collect(scheme, loader)
    num_rows = fit_targets(model, scheme.objectives, rows, teacher, batch, num_classes)
    with torch.no_grad():
        losses = scheme.objectives({"logits": model(rows)}, teacher, batch).losses
    return StudentFit(num_rows, {f"student/{name}": float(loss) for name, loss in losses.items()})


def fit_targets(
    model: SklearnModel,
    objectives: Objectives,
    rows: Tensor,
    teacher: Outputs,
    batch: Batch,
    num_classes: int,
) -> int:
    """Fit an estimator to the minimum of objectives; see ``fit_student``.

    Args:
        model: the estimator.
        objectives: objectives that give targets.
        rows: inputs of all samples (N, ...).
        teacher: outputs of the teacher for them; empty without a teacher.
        batch: labels of all samples.
        num_classes: number of classes; not used by a regressor.

    Returns:
        Number of samples that have a target.
    """
    if model.predicts_numbers:
        target, weight = real_targets(objectives, teacher, batch)
        _check_finite(target)
        with error_context("student"):
            model.fit_numbers(rows, target, weight)
        return int((weight > 0).sum())
    weights = class_weights(objectives, teacher, batch, num_classes)
    _check_finite(weights)
    with error_context("student"):
        model.fit_classes(rows, weights)
    return int((weights > 0).any(1).sum())


def class_weights(
    objectives: Objectives, teacher: Outputs, batch: Batch, num_classes: int
) -> Tensor:
    """Return the sample weight of each class of each sample.

    Args:
        objectives: objectives that give soft targets.
        teacher: outputs of the teacher for all samples; empty without a teacher.
        batch: all samples.
        num_classes: number of classes.

    Returns:
        (N, C), with the mean 1 over the samples that have a target.
    """
    total = torch.zeros(len(batch["label"]), num_classes, dtype=torch.float64)
    for name, objective, share in _shares(objectives, batch):
        assert isinstance(objective, GivesSoftTargets)
        with error_context(f"objectives.{name}"):
            target = objective.soft_targets(teacher, batch, num_classes)
        total += share.unsqueeze(1) * torch.where(share.unsqueeze(1) > 0, target.double(), 0.0)
    total = torch.where(total < MIN_SHARE * total.sum(1, keepdim=True), 0.0, total)
    num_rows = (total > 0).any(1).sum()
    return total * (num_rows / total.sum())


def real_targets(objectives: Objectives, teacher: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the target numbers of each sample, and its sample weight.

    Args:
        objectives: objectives that give real targets.
        teacher: outputs of the teacher for all samples; empty without a teacher.
        batch: all samples.

    Returns:
        Target (N, D), and weight (N,) with the mean 1 over the samples that have a target.
    """
    total = torch.zeros_like(batch["label"], dtype=torch.float64)
    weight = torch.zeros(len(total), dtype=torch.float64)
    for name, objective, share in _shares(objectives, batch):
        assert isinstance(objective, GivesRealTargets)
        with error_context(f"objectives.{name}"):
            target = objective.real_targets(teacher, batch)
        total += share.unsqueeze(1) * torch.where(share.unsqueeze(1) > 0, target.double(), 0.0)
        weight += share
    num_rows = (weight > 0).sum()
    return total / weight.clamp_min(1e-30).unsqueeze(1), weight * (num_rows / weight.sum())


def _shares(objectives: Objectives, batch: Batch) -> Iterator[tuple[str, Objective, Tensor]]:
    """Yield name and objective, and the factor (N,) of each sample's loss in the whole loss."""
    for name, objective in objectives.named():
        factor = objectives.weights[name]
        assert isinstance(factor, (int, float))
        # Without a labelled sample, the weights of a label loss are 0 as well.
        divisor = objective.num_items(batch).clamp_min(1e-30)
        yield name, objective, factor * objective.weight(batch).double() / divisor


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        row = int(values.isfinite().logical_not().any(1).nonzero()[0])
        with error_context("teacher"):
            raise ValueError(
                f"the targets of training row {row} are not finite. Expected finite outputs of the "
                "teacher. Check its weights and inputs"
            )


@torch.no_grad()
def _collect(scheme: Scheme, loader: Iterable[Batch]) -> tuple[Tensor, Outputs, Batch]:
    """Return inputs of the student, logits of the teacher, and labels, of all samples."""
    logits: list[Tensor] = []
    labels: list[Batch] = []
    device = init_distributed()
    scheme.to(device).prepare(to_device(next(iter(loader)), device))
    scheme.eval()
    with recorded_inputs(scheme.student) as inputs:
        for batch in loader:
            on_device = to_device(batch, device)
            scheme.student(on_device)
            teacher = scheme.teacher_outputs(on_device)
            if teacher:
                logits.append(teacher["logits"].float().cpu())
            labels.append({key: batch[key] for key in ("label", "index") if key in batch})
    scheme.objectives.cpu()
    whole = {key: torch.cat([part[key] for part in labels]) for key in labels[0]}
    teacher_outputs = {"logits": torch.cat(logits)} if logits else {}
    return torch.cat(inputs), teacher_outputs, whole
