"""2DPASS: fusion of the teacher's image features with the student's point features."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, NonNegative, Objective, Outputs, to_float32
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction
from instil.modules.adapters import match_dtype


def two_dpass_loss(
    fused_logits: Tensor,
    student_logits: Tensor,
    target: Tensor,
    distillation: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the fused prediction, and KL divergence from it to the student.

    Yan et al. 2022, Section 3.2. The divergence is the sum over the classes; its gradient reaches
    the student only. An unlabelled item has the divergence only.

    Args:
        fused_logits: predictions from image and points (N, C).
        student_logits: predictions from points (N, C).
        target: class indices (N,); -100 for no label.
        distillation: weight of the divergence.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> two_dpass_loss(torch.eye(2), torch.zeros(2, 2), torch.tensor([0, -100]))
        tensor(0.2676)
    """
    fused_logits, student_logits = to_float32(fused_logits), to_float32(student_logits)
    label_loss = F.cross_entropy(fused_logits, target, ignore_index=UNLABELLED, reduction="none")
    divergence = kl_divergence(fused_logits.detach().log_softmax(1), student_logits.log_softmax(1))
    return apply_reduction(label_loss + distillation * divergence, reduction)


class Fusion(nn.Module):
    """Gated fusion of an image vector and a point vector, and a classifier of the result.

    Args:
        student: width of the point vectors.
        teacher: width of the image vectors.
        classes: number of classes.
        width: width of the hidden layer of the learner.
        device: device of the parameters.
    """

    def __init__(self, student: int, teacher: int, classes: int, width: int, device: torch.device):
        super().__init__()
        self.learner = nn.Sequential(
            nn.Linear(student, width), nn.ReLU(), nn.Linear(width, teacher)
        )
        self.fuse = nn.Linear(2 * teacher, teacher)
        self.gate = nn.Linear(teacher, teacher)
        self.head = nn.Linear(teacher, classes)
        self.to(device)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute logits (N, classes) of vectors (N, D) of student and teacher."""
        learned = self.learner(match_dtype(self.learner, student))
        fused = self.fuse(torch.cat([teacher.to(learned.dtype), learned], 1))
        enhanced = teacher + self.gate(fused).sigmoid() * fused
        logits: Tensor = self.head(enhanced)
        return logits


class TwoDPASS(Objective):
    """Training of a fused classifier that teaches the student; the fusion is dropped afterwards.

    Embeddings and logits of the student, embeddings of an image teacher.
    """

    card = Card(
        "2DPASS: 2D Priors Assisted Semantic Segmentation on LiDAR Point Clouds",
        "https://arxiv.org/abs/2207.04397",
        "ECCV",
        2022,
        source="features",
        algorithms=("points", "cross-modal"),
        tasks=("classification", "point_classification"),
        labels=("single",),
        zero_at_match=False,
        deviations="One fusion of the embeddings of whole samples. The paper fuses the features of "
        "points at several scales, adds the output of the learner to the features of the points, "
        "and trains the image network as well. The divergence is a sum over the classes; the "
        "authors' code takes the mean over the classes.",
        equation=r"\mathrm{CE}(y, p^f) + \beta \, \mathrm{KL}(\bar p^f \Vert p^s), \quad p^f = "
        r"\mathrm{softmax}\left(W (t + \sigma(G u) \odot u)\right), \quad u = U [t, \phi(s)]",
        use="For a student of points and a teacher of images of other classes, or without a "
        "classifier: the fusion learns its own. It adds three linear layers of the teacher's "
        "width and a small network.",
        pitfalls="The fused classifier needs labels, so few labels limit it. With a teacher of the "
        "same classes compare it with kd, which needs none.",
    )
    needs: ClassVar = {
        "student": (("logits",), ("embedding",)),
        "teacher": (("embedding",),),
    }

    def __init__(
        self,
        distillation: Annotated[
            NonNegative, Doc("weight of the divergence from the fused prediction to the student")
        ] = 1.0,
        width: Annotated[int, Ge(1), Doc("width of the hidden layer that reads points")] = 64,
    ):
        super().__init__()
        self.distillation = distillation
        self.width = width
        self.fusion: Fusion

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the fusion and its classifier."""
        points, image = student["embedding"], teacher["embedding"]
        num_classes = student["logits"].shape[1]
        self.fusion = Fusion(
            points.shape[1], image.shape[1], num_classes, self.width, points.device
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        points, image = to_float32(student["embedding"]), to_float32(teacher["embedding"])
        fused = self.fusion(points, image)
        return two_dpass_loss(
            fused, student["logits"], batch["label"], self.distillation, reduction="none"
        )
