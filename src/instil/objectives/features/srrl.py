"""Softmax regression: the student's feature, adapted, is right when the teacher's own classifier says of it what it says of the teacher's."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import connector_end, convolutions, require_norm


def srrl_loss(
    student: Tensor,
    teacher: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    logit_weight: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Squared difference of two features, and ``logit_weight`` times that of their logits by one classifier (Yang et al. 2021, eq. 2 and 6).

    Features are vectors (N, D), or maps (N, D, H, W), of which the mean over the positions counts; both differences are means over their last
    dimension. Raises ValueError where the shapes differ.
    """
    student, teacher = (
        feature.mean((2, 3)) if feature.ndim == 4 else feature
        for feature in (to_float32(student), to_float32(teacher))
    )
    student, teacher = require_same_shape(student, teacher, "srrl_loss of features")
    mine, theirs = require_same_shape(student_logits, teacher_logits, "srrl_loss of logits")
    return apply_reduction(
        squared_error(student, teacher) + logit_weight * squared_error(mine, theirs), reduction
    )


class SRRL(Objective):
    """The student's deepest stage, through a convolution and averaged, near what the teacher's classifier reads, and so are the logits of both.

    ``logit_weight``: of the logits' difference beside that of the features.
    ``norm``: after the convolution; none leaves it as it is, batch is the authors' BatchNorm, which couples the samples.
    """

    card = Card(
        "Knowledge distillation via softmax regression representation learning",
        "https://openreview.net/forum?id=ZzwDy_wiWv",
        "ICLR",
        2021,
        source="features",
        zero_at_match=False,
        deviations="the convolution has a bias in place of BatchNorm (norm: 'batch' is the code's), and its ReLU only where the teacher's feature is "
        "nowhere negative; the feature is what the classifier reads, so that any architecture teaches",
        equation=r"\frac{1}{D} \lVert h - f^t \rVert_2^2 + \lambda \frac{1}{C} \lVert (W^t h + b^t) - z^t \rVert_2^2, \quad h = \mathrm{gap}(r(f^s))",
        use="Teachers with a linear classifier on one embedding: what this classifier does not see counts less. It costs a 1x1 convolution; the "
        "student keeps its own classifier, whose classes may be others.",
        pitfalls="The two terms have units of their own: logit_weight is 1 on ImageNet and 5 on CIFAR-100 in the code of the authors' followers. "
        "The student's own classifier learns nothing from it: add labels or kd.",
    )
    needs: ClassVar = {
        "student": (("features", "embedding"),),
        "teacher": (("embedding",), ("head",), ("logits",)),
    }
    per_sample = True

    def __init__(self, logit_weight: NonNegative = 1.0, norm: Literal["none", "batch"] = "none"):
        super().__init__()
        require_norm(norm, "none", "batch")
        self.logit_weight, self.norm = logit_weight, norm
        self.connector: nn.Module = nn.Identity()

    @property
    def couples(self) -> bool:
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make the connector. Raises ValueError where the teacher's classifier does not read its embedding."""
        embedding, (weight, _), logits = teacher["embedding"], teacher["head"], teacher["logits"]
        if (
            embedding.ndim != 2
            or embedding.shape[1] != weight.shape[1]
            or logits.shape != (len(embedding), len(weight))
        ):
            shapes = f"embedding {tuple(embedding.shape)}, head {tuple(weight.shape)}, logits {tuple(logits.shape)}"
            raise ValueError(
                f"the teacher's head (C, D) must give logits (N, C) of embedding (N, D), not {shapes}"
            )
        stage = self._stage(student)
        made = convolutions(
            (stage.shape[1], embedding.shape[1]), (1,), self.norm, connector_end(embedding)
        )
        self.connector = made.to(stage.device, stage.dtype)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weight, bias = map(to_float32, teacher["head"])
        adapted = to_float32(
            self.connector(match_dtype(self.connector, self._stage(student)))
        ).mean((2, 3))
        spoken = F.linear(adapted, weight, bias)
        return srrl_loss(
            adapted,
            teacher["embedding"],
            spoken,
            teacher["logits"],
            self.logit_weight,
            "mean" if self.couples else "none",
        )

    def _stage(self, student: Outputs) -> Tensor:
        """The student's deepest stage, or its embedding, as a map."""
        return to_float32(
            as_map(
                feature_levels(student)[-1]
                if "features" in self.reads["student"]
                else student["embedding"]
            )
        )
