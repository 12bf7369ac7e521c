"""Relational representation distillation: SEED after one learned head per side."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import NormalizedProjections
from instil.modules.memory import Queue
from instil.objectives.bases.anchors import (
    anchor_cross_entropy,
    anchor_queue,
    anchor_rows,
    push_anchors,
)
from instil.objectives.bases.relation_objective import RelationObjective


@check_bounds
def relational_representation_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    queue: Tensor,
    temperature: Positive = 0.1,
    teacher_temperature: Positive = 0.02,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the softmax similarities to K + 1 teacher embeddings (Giakoumoglou 2024).

    The anchors are the sample's own teacher embedding and the queue. Embeddings are scaled to unit
    length.

    Args:
        student_embedding: output (N, D) of the student's head.
        teacher_embedding: output (N, D) of the teacher's head.
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
        >>> relational_representation_loss(torch.ones(2, 2), torch.eye(2), torch.eye(2))
        tensor(1.0986)
    """
    pair = require_same_shape(
        student_embedding, teacher_embedding, "relational_representation_loss"
    )
    values = anchor_cross_entropy(*pair, queue, temperature, teacher_temperature)
    return apply_reduction(values, reduction)


class RelationalRepresentation(RelationObjective):
    """Agreement of the similarities to the last teacher embeddings, after one linear head per side.

    Embeddings are (N, D) of any widths. The teacher's head keeps its random initial weights: the
    authors' code passes no gradient through the teacher's side.
    """

    card = Card(
        "Relational representation distillation",
        "https://arxiv.org/abs/2407.12073",
        "arXiv",
        2024,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, CIFAR-100; alone or with kd of weight 1",
        deviations="The temperatures are those of the training scripts; the comment in the "
        "authors' class swaps them. Their code stores the batch before the comparison, so that "
        "its samples are anchors of each other. Here a sample's own teacher embedding is an "
        "additional anchor, and the batch may be split. At a match the loss is the cross-entropy "
        "of two temperatures, not zero.",
        equation=r"-\sum_{k=0}^{K} p^t_k \log p^s_k, \quad p_k = \frac{e^{z^\top a_k / "
        r"\tau}}{\sum_{l=0}^{K} e^{z^\top a_l / \tau}}, \quad z = \frac{W f + b}{\Vert W f + b "
        r"\Vert}, \quad a_0 = z^t, \quad \tau \in \lbrace \tau^s, \tau^t \rbrace",
        use="For supervised classification when the contrast of crd is too hard: anchors similar "
        "to the sample are not pushed away but weighted like the teacher weights them. It "
        "combines with kd. Cost: one linear head per side (only the student's is trained) and "
        "`size` stored vectors.",
        pitfalls="The student learns only what a random projection of the teacher's embedding to "
        "`dim` entries preserves. The value at a match is not zero. The queue starts random and is "
        "full after `size` samples.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2), Doc("width of both heads' embeddings")] = 128,
        temperature: Annotated[Positive, Doc("divisor of the student's cosines")] = 0.1,
        teacher_temperature: Annotated[Positive, Doc("divisor of the teacher's cosines")] = 0.02,
        size: Annotated[int, Ge(1), Doc("number of stored teacher embeddings")] = 16384,
    ):
        super().__init__()
        self.dim = dim
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.size = size
        self.queue: Queue

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        heads = NormalizedProjections(student, teacher, self.dim)
        # Stored anchors come from this head: if it were trained, older ones would become outdated.
        heads.teacher.requires_grad_(False)
        return heads

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.queue = anchor_queue(self, self.size, ("teacher",), student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return relational_representation_loss(
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
