"""SimReg: regression of the teacher's embedding through a perceptron."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card
from instil.functional.directions import unit_distance
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import IdentityPair
from instil.modules.projectors import RegressionHead
from instil.objectives.bases.relation_objective import RelationObjective


def simreg_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, reduction: str = "mean"
) -> Tensor:
    """Squared distance of embeddings at unit length (Navaneet et al. 2021).

    It is two minus twice the cosine similarity.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> simreg_loss(torch.ones(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.5858)
    """
    student, teacher = require_same_shape(student_embedding, teacher_embedding, "simreg_loss")
    return apply_reduction(unit_distance(student, teacher), reduction)


class SimReg(RelationObjective):
    """Squared distance of the teacher's embedding and its prediction from the student's.

    Embeddings are (N, D) of any widths. The perceptron that predicts is not exported.
    """

    card = Card(
        "SimReg: Regression as a Simple Yet Effective Tool for Self-supervised Knowledge "
        "Distillation",
        "https://arxiv.org/abs/2201.05131",
        "BMVC",
        2021,
        source="features",
        tasks=("representation", "classification"),
        zero_at_match=False,
        deviations="The perceptron has layer norm instead of BatchNorm, which would couple the "
        "samples of a batch. The authors' code has no ReLU in a perceptron of two layers.",
        equation=r"\left\lVert \frac{g(f^s)}{\lVert g(f^s) \rVert} - "
        r"\frac{f^t}{\lVert f^t \rVert} \right\rVert_2^2",
        use="The first method for a student of a self-supervised teacher. It needs no labels, no "
        "memory and no second view; teacher and student receive the same weakly augmented image.",
        pitfalls="A perceptron with many layers can regress the teacher from a poor embedding. If "
        "the probe falls behind the loss, use fewer layers. The student's embedding has its own "
        "space: it cannot be searched with the teacher's vectors.",
    )

    def __init__(
        self,
        layers: Annotated[
            int,
            Ge(0),
            Doc(
                "linear layers of the perceptron; 1: a linear projection; 0: no perceptron, for "
                "embeddings of one width"
            ),
        ] = 4,
    ):
        super().__init__()
        self.layers = layers

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        if not self.layers:
            return IdentityPair()
        return RegressionHead(student, teacher, self.layers)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return simreg_loss(student_embedding, teacher_embedding, "none")
