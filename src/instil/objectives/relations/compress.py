"""CompRess: similarities to stored samples agree between student and teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Positive, check_bounds
from instil.functional.choices import require_choice
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_same_items
from instil.functional.logits import apply_reduction
from instil.modules.adapters import IdentityPair, StudentProjection
from instil.modules.memory import Queue
from instil.objectives.bases.anchors import anchor_queue, anchor_rows, push_anchors
from instil.objectives.bases.relation_objective import RelationObjective

Queues = Literal["two", "one"]


@check_bounds
def compress_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    student_anchors: Tensor,
    teacher_anchors: Tensor,
    temperature: Positive = 0.04,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of the softmax similarities to K anchors (Abbasi Koohpayegani et al. 2020).

    The softmax is over cosines divided by the temperature.

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D').
        student_anchors: unit vectors (K, D).
        teacher_anchors: unit vectors (K, D') of the same K samples.
        temperature: divisor of the cosines, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> compress_loss(torch.ones(2, 2), torch.eye(2), torch.eye(2), torch.eye(2), 1.0)
        tensor(0.1109)
    """
    require_same_items(student_embedding, teacher_embedding, "compress_loss")
    student_units = l2_normalize(student_embedding)
    teacher_units = l2_normalize(teacher_embedding)
    student_cosines = pairwise_dot(student_units, student_anchors.to(student_units.dtype))
    teacher_cosines = pairwise_dot(teacher_units, teacher_anchors.to(teacher_units.dtype))
    return apply_reduction(softened_kl(student_cosines, teacher_cosines, temperature), reduction)


class CompRess(RelationObjective):
    """Agreement of the similarities to the samples of the last steps.

    Embeddings are (N, D) of any widths.
    """

    card = Card(
        "CompRess: Self-supervised learning by compressing representations",
        "https://arxiv.org/abs/2010.14713",
        "NeurIPS",
        2020,
        source="relations",
        algorithms=("contrastive",),
        deviations="The student's queue holds the student's embeddings at that step, as in the "
        "code without momentum. The published runs store those of a moving average of the student.",
        equation=r"\mathrm{KL}\left( p^t \Vert p^s \right), \quad p^s_k = \frac{e^{\cos(f^s, "
        r"a^s_k) / \tau}}{\sum_l e^{\cos(f^s, a^s_l) / \tau}}, \quad p^t_k = \frac{e^{\cos(f^t, "
        r"a^t_k) / \tau}}{\sum_l e^{\cos(f^t, a^t_l) / \tau}}, \quad k = 1, \dots, K",
        use="To compress a self-supervised teacher without labels, as the only loss. With two "
        "queues there are no learned layers and the widths may differ. Cost: `size` stored "
        "vectors of both widths, and a product with all of them each step.",
        pitfalls="The student's anchors come from older versions of the student, which misleads a "
        "student that changes fast. The queue starts random and is full after `size` samples. A "
        "low temperature makes the target nearly one-hot.",
    )

    def __init__(
        self,
        queues: Annotated[
            Queues,
            Doc(
                "two: each side has anchors of its own; one: the teacher's anchors for both, "
                "with a learned linear map of the student's embedding if the widths differ"
            ),
        ] = "two",
        temperature: Annotated[Positive, Doc("divisor of the cosines of both sides")] = 0.04,
        size: Annotated[int, Ge(1), Doc("number of stored samples")] = 128000,
    ):
        super().__init__()
        require_choice("queues", queues, ("two", "one"))
        self.queues = queues
        self.temperature = temperature
        self.size = size
        self.queue: Queue

    @property
    def remembers(self) -> tuple[str, ...]:
        """Sides whose vectors are anchors."""
        return ("student", "teacher") if self.queues == "two" else ("teacher",)

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return IdentityPair() if self.queues == "two" else StudentProjection(student, teacher)

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.queue = anchor_queue(self, self.size, self.remembers, student, teacher)

    def loss(self, student_embedding: Tensor, teacher_embedding: Tensor, batch: Batch) -> Tensor:
        return compress_loss(
            student_embedding,
            teacher_embedding,
            # With one queue the student is compared with the teacher's anchors as well.
            self.queue[self.remembers[0]],
            self.queue["teacher"],
            self.temperature,
            "none",
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return anchor_rows(self, self.remembers, student, teacher, batch)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        """Push the vectors of the step into the queue."""
        push_anchors(self.queue, self.remembers, gathered_rows)
