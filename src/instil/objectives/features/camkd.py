"""Confidence-aware multi-teacher distillation: correct teachers have larger weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import check_bounds
from instil.core import Batch, Card, NonNegative, Objective, Outputs, Positive, to_float32
from instil.functional.ensembles import (
    inverse_share_weights,
    members,
    require_teacher_stack,
    stack_teacher_logits,
    teacher_divergences,
)
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction, require_class_target
from instil.functional.pairs import describe_pair, feature_levels
from instil.functional.pooling import mean_positions
from instil.items import Items, drop_unlabelled_gradient
from instil.modules.adapters import Adapter

ROLES = ("features", "logits", "head")


def camkd_weights(logits: Tensor, target: Tensor) -> Tensor:
    """Weights of the teachers (Zhang et al. 2022, Eq. 2), differentiable by the logits.

    ``w = (1 - softmax over the teachers of the cross-entropy with the label) / (K - 1)``. They sum
    to 1 over the teachers.

    Args:
        logits: logits (K, N, C) of K teachers.
        target: class indices (N,); ``-100`` marks an unlabelled sample.

    Returns:
        (K, N).
    """
    require_class_target(logits[0], target)
    index = target.clamp_min(0).expand(logits.shape[:-1]).unsqueeze(-1)
    nll = -to_float32(logits).log_softmax(-1).gather(-1, index).squeeze(-1)
    return inverse_share_weights(nll.softmax(0))


@check_bounds
def camkd_logit_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    temperature: Positive = 4.0,
    reduction: str = "mean",
) -> Tensor:
    """Weighted KL divergences to several teachers (Zhang et al. 2022, Eq. 3).

    Sum over the teachers of ``w * temperature ** 2 * KL(teacher || student)``. The weights are
    ``camkd_weights`` of the teacher logits.

    Args:
        student_logits: (N, C).
        teacher_logits: logits (K, N, C) of K teachers.
        target: class indices (N,); ``-100`` marks an unlabelled sample, whose loss is 0.
        temperature: softmax temperature of the divergences, > 0.
        reduction: ``"mean"`` over the labelled samples, or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> teacher_logits = torch.stack([2 * torch.eye(3)[:2], torch.zeros(2, 3)])
        >>> camkd_logit_loss(torch.zeros(2, 3), teacher_logits, torch.tensor([0, 1]))
        tensor(0.3391)
    """
    require_teacher_stack(student_logits, teacher_logits)
    require_class_target(student_logits, target)
    (student_logits,) = drop_unlabelled_gradient(target, student_logits)
    expanded_target = target.expand(teacher_logits.shape[:-1])
    (teacher_logits,) = drop_unlabelled_gradient(expanded_target, teacher_logits)
    values = teacher_divergences(student_logits, teacher_logits, temperature)
    weights = camkd_weights(teacher_logits, target)
    return apply_reduction((weights * values).sum(0), reduction, target)


def camkd_feature_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    classifier_logits: Tensor,
    target: Tensor,
    reduction: str = "mean",
) -> Tensor:
    """Weighted squared errors of features for several teachers (Zhang et al. 2022, Eq. 4 and 5).

    Sum over the teachers of the weight times the mean squared difference. The weights are
    ``camkd_weights`` of ``classifier_logits``.

    Args:
        student_features: K tensors (N, ...), the student features adapted to each teacher.
        teacher_features: K tensors (N, ...) of the same shapes.
        classifier_logits: outputs (K, N, C) of each teacher's classifier for the adapted student
            features.
        target: class indices (N,); ``-100`` marks an unlabelled sample, whose loss is 0.
        reduction: ``"mean"`` over the labelled samples, or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> student, teachers = torch.zeros(1, 4), [torch.ones(1, 4), 2 * torch.ones(1, 4)]
        >>> logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
        >>> camkd_feature_loss([student, student], teachers, logits, torch.tensor([0]))
        tensor(2.0863)
    """
    pairs = [
        require_same_shape(student, teacher, "camkd_feature_loss")
        for student, teacher in zip(student_features, teacher_features, strict=True)
    ]
    require_class_target(classifier_logits[0], target)
    expanded_target = target.expand(classifier_logits.shape[:-1])
    (classifier_logits,) = drop_unlabelled_gradient(expanded_target, classifier_logits)
    pairs = [(drop_unlabelled_gradient(target, student)[0], other) for student, other in pairs]
    values = torch.stack([squared_error(student, teacher) for student, teacher in pairs])
    weights = camkd_weights(classifier_logits, target)
    return apply_reduction((weights * values).sum(0), reduction, target)


class CAMKD(Objective):
    """Logits and deepest features of several teachers, weighted per sample by correctness.

    After ``build``, ``describe_pair`` lists the adapter of each teacher.
    """

    card = Card(
        "Confidence-aware multi-teacher knowledge distillation",
        "https://arxiv.org/abs/2201.00007",
        "ICASSP",
        2022,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        published_weight=0.33,
        weight_setting="the authors' code, CIFAR-100, three teachers: the code has the weight 1 "
        "and divides by their number",
        deviations="Both terms are weighted sums over the teachers with weights that sum to 1, as "
        "in the paper; the code divides both by K once more. As in the code, the squared "
        "difference is a mean over the elements, and the feature weights have a gradient. The "
        "adapter is one 1x1 convolution, the code's has three with BatchNorm. The feature term is "
        "active from the first step on, in the code from the second epoch on.",
        equation=r"\sum_k w_k T^2 \mathrm{KL}(p^{t_k}_T \Vert p^s_T) + \beta \sum_k v_k "
        r"\frac{1}{CHW} \lVert r_k(f^s) - f^{t_k} \rVert_2^2, \quad w_k = \frac{1}{K - 1} \Big( 1 "
        r"- \frac{e^{L_k}}{\sum_j e^{L_j}} \Big), \quad L_k = -\log p^{t_k}_y",
        use="For labelled data and several teachers that are correct on different samples: list "
        "them under teacher. It costs their forward passes and a 1x1 convolution each. With one "
        "teacher it is kd plus a hint loss.",
        pitfalls="Unlabelled samples have no loss: add ebkd or kd for them. Teachers that fit the "
        "training set are all correct on it, and their weights are equal. Each teacher must have "
        "one linear classifier on its averaged deepest features. train.shard is not supported.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("members", "features"), ("members", "logits"), ("members", "head")),
    }
    items = Items(per_sample=True, labelled=True)

    def __init__(
        self,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the divergences; the weights use 1")
        ] = 4.0,
        feature_weight: Annotated[
            NonNegative, Doc("weight of the feature term relative to the logit term")
        ] = 50.0,
    ):
        super().__init__()
        self.temperature = temperature
        self.feature_weight = feature_weight
        self.adapters = nn.ModuleList()
        self.plan: list[str] = []

    def sharding_obstacle(self) -> str | None:
        """Reason why sharded nets cannot be trained with this loss."""
        return "reads weights of the members, which are gone after their forward pass"

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create one adapter per teacher.

        Raises:
            ValueError: if a teacher lacks an output or its classifier does not use the deepest
                features.
        """
        student_levels = feature_levels(student_outputs)
        self.adapters = nn.ModuleList()
        self.plan = []
        for index, member in enumerate(members(teacher_outputs)):
            _require_classifier(index, member)
            levels = feature_levels(member)
            adapter = Adapter(student_levels[-1], levels[-1])
            pair = (len(student_levels) - 1, len(levels) - 1)
            self.adapters.append(adapter)
            self.plan.append(describe_pair(pair, student_levels[-1], levels[-1], str(adapter)))

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        teachers = members(teacher_outputs)
        target = batch["label"]
        student_logits = student_outputs["logits"]
        teacher_logits = stack_teacher_logits(student_logits, teachers)
        loss = camkd_logit_loss(student_logits, teacher_logits, target, self.temperature, "none")
        if not self.feature_weight:
            return loss
        deepest = feature_levels(student_outputs)[-1]
        student_features = [to_float32(adapter(deepest)) for adapter in self.adapters]
        teacher_features = [as_map(feature_levels(member)[-1]) for member in teachers]
        classifier_logits = [
            F.linear(mean_positions(features), *map(to_float32, member["head"]))
            for features, member in zip(student_features, teachers, strict=True)
        ]
        return loss + self.feature_weight * camkd_feature_loss(
            student_features, teacher_features, torch.stack(classifier_logits), target, "none"
        )


def _require_classifier(index: int, member: Outputs) -> None:
    """Check that a teacher has all outputs and a classifier of its deepest features."""
    missing = [role for role in ROLES if role not in member]
    if missing:
        raise ValueError(
            f"teacher {index}: no {missing[0]}. Expected {', '.join(ROLES)}, got "
            f"{', '.join(member)}. Name the module that outputs it in the teacher's taps."
        )
    channels = as_map(feature_levels(member)[-1]).shape[1]
    width = member["head"][0].shape[1]
    if channels != width:
        raise ValueError(
            f"teacher {index}: the head is not a classifier of the deepest features. Expected "
            f"{width} channels, the input size of the head, got {channels}. Tap the layer before "
            "the head."
        )
