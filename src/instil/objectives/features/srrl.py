"""Softmax regression: adapted student features give the teacher's logits in its classifier."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, check_bounds, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.functional.pooling import mean_positions
from instil.items import Items
from instil.modules.adapters import match_dtype
from instil.modules.connectors import connector_end, convolutions, require_norm


@check_bounds
def srrl_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    logit_weight: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Softmax regression representation loss (Yang et al. 2021, Eq. 2 and 6).

    Mean squared difference of the features, plus ``logit_weight`` times that of the logits. Maps
    are averaged over the positions first.

    Args:
        student_features: adapted vectors (N, D) or maps (N, D, *grid).
        teacher_features: vectors (N, D) or maps (N, D, *grid).
        student_logits: output (N, C) of the teacher's classifier for the adapted student features.
        teacher_logits: (N, C).
        logit_weight: weight of the logit term.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])
        >>> srrl_loss(torch.zeros(1, 4), torch.ones(1, 4), *logits, logit_weight=2.0)
        tensor(2.)
    """
    student_features = _average_positions(student_features)
    teacher_features = _average_positions(teacher_features)
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "srrl_loss of features"
    )
    student_logits, teacher_logits = require_same_shape(
        student_logits, teacher_logits, "srrl_loss of logits"
    )
    values = squared_error(student_features, teacher_features)
    logit_values = squared_error(student_logits, teacher_logits)
    return apply_reduction(values + logit_weight * logit_values, reduction)


def _average_positions(features: Tensor) -> Tensor:
    """Vectors (N, D) in float32 of vectors (N, D) or maps (N, D, *grid)."""
    features = to_float32(features)
    return mean_positions(features) if features.ndim >= 4 else features


class SRRL(Objective):
    """Match of the adapted student features with the teacher's embedding, and of the logits.

    A 1x1 convolution and the average over the positions adapt the student's deepest level. The
    teacher's classifier computes the logits of both sides.
    """

    card = Card(
        "Knowledge distillation via softmax regression representation learning",
        "https://openreview.net/forum?id=ZzwDy_wiWv",
        "ICLR",
        2021,
        source="features",
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- ResNet34",
        deviations="The convolution has a bias instead of BatchNorm; norm: 'batch' is that of the "
        "code. It has a ReLU only where the teacher's embedding has no negative value. The target "
        "is the input of the classifier, so that any architecture can be the teacher.",
        equation=r"\frac{1}{D} \lVert h - f^t \rVert_2^2 + \lambda \frac{1}{C} \lVert (W^t h + "
        r"b^t) - z^t \rVert_2^2, \quad h = \mathrm{gap}(r(f^s))",
        use="For teachers with a linear classifier on one embedding: directions that the "
        "classifier ignores count less. It costs a 1x1 convolution. The student keeps its own "
        "classifier, which may have other classes.",
        pitfalls="The two terms have different units: logit_weight is 1 on ImageNet and 5 on "
        "CIFAR-100 in the code of follow-up work. The student's own classifier learns nothing "
        "from it: add labels or kd.",
    )
    needs: ClassVar = {
        "student": (("features", "embedding"),),
        "teacher": (("embedding",), ("head",), ("logits",)),
    }
    items = Items(per_sample=True)

    def __init__(
        self,
        logit_weight: Annotated[
            NonNegative, Doc("weight of the logit term relative to the feature term")
        ] = 1.0,
        norm: Annotated[
            Literal["none", "batch"],
            Doc(
                "layer after the convolution: none, or batch (the authors' BatchNorm, couples the "
                "samples)"
            ),
        ] = "none",
    ):
        super().__init__()
        require_norm(norm, "none", "batch")
        self.logit_weight = logit_weight
        self.norm = norm
        self.connector: nn.Module = nn.Identity()

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of a sample depend on the others."""
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the connector.

        Raises:
            ValueError: if the teacher's classifier does not use its embedding.
        """
        embedding = teacher["embedding"]
        _require_classifier(embedding, teacher["head"][0], teacher["logits"])
        level = self._student_map(student)
        widths = (level.shape[1], embedding.shape[1])
        connector = convolutions(widths, (1,), self.norm, connector_end(embedding))
        self.connector = connector.to(level.device, level.dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weight, bias = map(to_float32, teacher["head"])
        level = match_dtype(self.connector, self._student_map(student))
        adapted = mean_positions(to_float32(self.connector(level)))
        return srrl_loss(
            adapted,
            teacher["embedding"],
            F.linear(adapted, weight, bias),
            teacher["logits"],
            self.logit_weight,
            "mean" if self.couples else "none",
        )

    def _student_map(self, student: Outputs) -> Tensor:
        """The student's deepest level, or its embedding, as a map in float32."""
        has_features = "features" in self.reads["student"]
        level = feature_levels(student)[-1] if has_features else student["embedding"]
        return to_float32(as_map(level))


def _require_classifier(embedding: Tensor, weight: Tensor, logits: Tensor) -> None:
    """Raise ValueError if the weight does not map the embedding to the logits."""
    is_vector = embedding.ndim == 2 and embedding.shape[1] == weight.shape[1]
    if not is_vector or logits.shape != (len(embedding), len(weight)):
        raise ValueError(
            "head: not a classifier of the teacher's embedding. Expected head (C, D), embedding "
            f"(N, D) and logits (N, C), got head {tuple(weight.shape)}, embedding "
            f"{tuple(embedding.shape)} and logits {tuple(logits.shape)}. Tap the layer before the "
            "head as the embedding."
        )
