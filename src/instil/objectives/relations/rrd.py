"""Relational representation distillation: SEED's likeness to remembered teacher embeddings, after a learned head a side."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, Positive
from instil.modules.adapters import NormalizedProjections
from instil.objectives.relations.seed import SEED


class RRD(SEED):
    """The likeness to the last teacher embeddings, out of a linear head a side, agrees with the teacher's.

    The teacher's head stays as it was drawn: the authors' code takes no gradient through the teacher's side.

    ``dim``: width of both heads' embeddings.
    ``temperature``: of the student.
    ``teacher_temperature``: of the teacher.
    ``size``: how many embeddings are remembered.
    """

    card = Card(
        "Relational representation distillation",
        "https://arxiv.org/abs/2407.12073",
        "arXiv",
        2024,
        source="relations",
        algorithms=("contrastive",),
        zero_at_match=False,
        deviations="the temperatures are those of the training scripts; the class's own comment has them the other way round. "
        "The code remembers the batch before it compares, so that its samples are anchors of each other; here a sample's own teacher "
        "embedding stands beside the queue, and the batch may be cut. At a match the loss is the cross-entropy of two temperatures, not zero",
        equation=r"-\sum_{k=0}^{K} p^t_k \log p^s_k, \quad p_k = \frac{e^{z^\top a_k / \tau}}{\sum_{l=0}^{K} e^{z^\top a_l / \tau}}, \quad z = "
        r"\frac{W f + b}{\Vert W f + b \Vert}, \quad a_0 = z^t, \quad \tau \in \lbrace \tau^s, \tau^t \rbrace",
        use="For supervised classification where crd's contrast is too hard: anchors like the sample are not pushed away but weighed as the "
        "teacher weighs them. It combines with kd. Cost: a linear head a side, the student's alone trained, and size remembered vectors.",
        pitfalls="Published with weight 1, alone or with kd of weight 1. What the teacher's head was drawn to keep is all that is taught, a random "
        "projection to dim entries. The value at a match is not zero. The queue starts random and is full after size samples.",
    )

    def __init__(
        self,
        dim: Annotated[int, Ge(2)] = 128,
        temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.02,
        size: Annotated[int, Ge(1)] = 16384,
    ):
        super().__init__(temperature, teacher_temperature, size)
        self.dim = dim

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        heads = NormalizedProjections(student, teacher, self.dim)
        heads.teacher.requires_grad_(False)
        return heads
