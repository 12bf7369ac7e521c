"""The student puts every text where the teacher puts it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import match_dtype

ROLES = ("sentence_embedding", "partner_embedding")
Distance = Literal["squared", "cosine"]


def embedding_regression_loss(
    student: Tensor, teacher: Tensor, distance: Distance = "squared", reduction: str = "mean"
) -> Tensor:
    """Mean over D of the squared difference of embeddings (N, D) (Reimers & Gurevych 2020, Eq. 1), or 1 - cos of the two.

    Gives (N,) for reduction ``none``. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "embedding_regression_loss")
    return apply_reduction(
        squared_error(student, teacher)
        if distance == "squared"
        else 1 - F.cosine_similarity(student, teacher, dim=-1),
        reduction,
    )


class EmbeddingRegression(Objective):
    """The embeddings of both texts of a pair regress the teacher's; where the widths differ, the student's are projected, linearly.

    ``distance``: squared differences, or 1 - cos, which leaves the length free.
    """

    card = Card(
        "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
        "https://arxiv.org/abs/2004.09813",
        "EMNLP",
        2020,
        source="features",
        tasks=("sentence_embedding",),
        deviations="The paper's pairs are translations and both of the student's texts regress the teacher's first; here the teacher reads both. The "
        "cosine is what libraries offer beside it. A projection where the widths differ, which the paper excludes.",
        equation=r"\frac{1}{2} \sum_{u \in \text{pair}} \frac{1}{D} \lVert f^s(u) - f^t(u) \rVert_2^2",
        use="A smaller or shallower encoder that is to give the teacher's vectors, so that an index of these can still be searched: take a student "
        "of the teacher's width. It needs texts and no pairs that belong together, but uses them.",
        pitfalls="The squared distance is divided by D, and vectors have the length that the teacher gives them: its weight does not carry over. "
        "A projection does not ship: a student of another width keeps a space of its own.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), tuple((role,) for role in ROLES))

    def __init__(self, distance: Distance = "squared"):
        super().__init__()
        self.distance = distance
        self.projection: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        mine, theirs = student[ROLES[0]], teacher[ROLES[0]]
        if mine.shape[-1] != theirs.shape[-1]:
            self.projection = nn.Linear(
                mine.shape[-1], theirs.shape[-1], device=mine.device, dtype=to_float32(mine).dtype
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        projected = [
            self.projection(match_dtype(self.projection, to_float32(student[role])))
            for role in ROLES
        ]
        first, second = (
            embedding_regression_loss(mine, teacher[role], self.distance, "none")
            for mine, role in zip(projected, ROLES, strict=True)
        )
        return (first + second) / 2
