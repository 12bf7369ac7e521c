"""CompRess: a sample is as near to remembered samples, among the student's embeddings, as among the teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Batch, Card, Positive, closest
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction
from instil.modules.adapters import IdentityPair, StudentProjection
from instil.objectives.bases.anchor_objective import AnchorObjective

Queues = Literal["two", "one"]


def compress_loss(
    student: Tensor,
    teacher: Tensor,
    student_anchors: Tensor,
    teacher_anchors: Tensor,
    temperature: float = 0.04,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of the likeness to K anchors, a softmax of cosines over temperature (Abbasi Koohpayegani et al. 2020).

    Embeddings (N, Ds) and (N, Dt), to unit length; anchors (K, Ds) and (K, Dt) of the same K samples.
    """
    sides = (l2_normalize(student), student_anchors), (l2_normalize(teacher), teacher_anchors)
    mine, theirs = (pairwise_dot(side, anchors.to(side.dtype)) for side, anchors in sides)
    return apply_reduction(softened_kl(mine, theirs, temperature), reduction)


class CompRess(AnchorObjective):
    """The likeness to the samples of the last steps agrees with the teacher's.

    ``queues``: two, each side compares with its own embeddings of those samples; one, both with the teacher's, the student's embedding through a
    learned linear map where the widths differ.
    ``temperature``: of both sides.
    ``size``: how many samples are remembered.
    """

    card = Card(
        "CompRess: Self-supervised learning by compressing representations",
        "https://arxiv.org/abs/2010.14713",
        "NeurIPS",
        2020,
        source="relations",
        algorithms=("contrastive",),
        deviations="the student's queue holds what the student said then, as the code without momentum does; the published runs let a moving average "
        "of the student say it",
        equation=r"\mathrm{KL}\left( p^t \Vert p^s \right), \quad p^s_k = \frac{e^{\cos(f^s, a^s_k) / \tau}}{\sum_l e^{\cos(f^s, a^s_l) / \tau}}, "
        r"\quad p^t_k = \frac{e^{\cos(f^t, a^t_k) / \tau}}{\sum_l e^{\cos(f^t, a^t_l) / \tau}}, \quad k = 1, \dots, K",
        use="To compress a self-supervised teacher without labels, as the only loss. With two queues nothing is learned in between and the "
        "widths may differ. Cost: size vectors of either width are remembered, and a product with all of them each step.",
        pitfalls="The student's anchors were written by older students, which a fast-moving student contradicts. The queue starts random and is "
        "full after size samples. A low temperature makes the target nearly one-hot.",
    )

    def __init__(
        self,
        queues: Queues = "two",
        temperature: Positive = 0.04,
        size: Annotated[int, Ge(1)] = 128000,
    ):
        super().__init__()
        if queues not in ("two", "one"):
            raise ValueError(f"queues: no queues '{queues}'; {closest(queues, ('two', 'one'))}")
        self.queues, self.temperature, self.size = queues, temperature, size

    @property
    def remembers(self) -> tuple[str, ...]:
        return ("student", "teacher") if self.queues == "two" else ("teacher",)

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        return IdentityPair() if self.queues == "two" else StudentProjection(student, teacher)

    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        anchors = self.queue[self.remembers[0]], self.queue["teacher"]
        return compress_loss(student, teacher, *anchors, self.temperature, "none")
