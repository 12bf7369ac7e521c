"""Self-supervised distillation: similarities to stored teacher embeddings and the sample's own."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import StudentProjection
from instil.modules.memory import Queue
from instil.objectives.bases.anchors import (
    anchor_cross_entropy,
    anchor_queue,
    anchor_rows,
    push_anchors,
)
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def seed_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    queue: Tensor,
    temperature: Positive = 0.2,
    teacher_temperature: Positive = 0.01,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the softmax similarities to K + 1 teacher embeddings (Fang et al. 2021).

    The anchors are the sample's own teacher embedding and the queue. Embeddings are scaled to unit
    length.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        queue: unit teacher embeddings (K, D) of other samples.
        temperature: divisor of the student's cosines, > 0.
        teacher_temperature: divisor of the teacher's cosines, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> seed_loss(torch.ones(2, 2), torch.eye(2), torch.eye(2))
        tensor(1.0986)
    """
    pair = require_same_shape(student_embedding, teacher_embedding, "seed_loss")
    values = anchor_cross_entropy(*pair, queue, temperature, teacher_temperature)
    return apply_reduction(values, reduction)


class SEED(RelationObjective):
    """Agreement of the similarities to the last teacher embeddings.

    Embeddings are (N, D). If the widths differ, a learned linear map projects the student's.
    """

    card = Card(
        "SEED: Self-supervised distillation for visual representation",
        "https://arxiv.org/abs/2101.04731",
        "ICLR",
        2021,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        deviations="At a match the loss is the cross-entropy of two temperatures, not zero.",
        equation=r"-\sum_{k=0}^{K} p^t_k \log p^s_k, \quad p_k = \frac{e^{\cos(f, a_k) / "
        r"\tau}}{\sum_{l=0}^{K} e^{\cos(f, a_l) / \tau}}, \quad a_0 = f^t, \quad \tau \in \lbrace "
        r"\tau^s, \tau^t \rbrace",
        use="To distil a self-supervised teacher into a small network without labels, as the only "
        "loss. Cost: `size` stored teacher vectors and a product with all of them each step; a "
        "linear map if the widths differ.",
        pitfalls="The value at a match is not zero, so the loss does not show how close the "
        "student is. At a low teacher temperature the target is only the sample's own embedding, "
        "and the method becomes contrastive learning. The queue starts random and is full after "
        "`size` samples.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("divisor of the student's cosines")] = 0.2,
        teacher_temperature: Annotated[
            Positive,
            Doc("divisor of the teacher's cosines; 0.01 in the paper, down to 1e-4 in the scripts"),
        ] = 0.01,
        size: Annotated[int, Ge(1), Doc("number of stored teacher embeddings")] = 65536,
    ):
        super().__init__()
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.size = size
        self.queue: Queue

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return StudentProjection(student, teacher)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.queue = anchor_queue(self, self.size, ("teacher",), student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return seed_loss(
            student_embedding,
            teacher_embedding,
            self.queue["teacher"],
            self.temperature,
            self.teacher_temperature,
            "none",
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return anchor_rows(self, ("teacher",), student, teacher, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Push the vectors of the step into the queue."""
        push_anchors(self.queue, ("teacher",), gathered_rows)
