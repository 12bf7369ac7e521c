"""Regression of the teacher's text embeddings."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.logits import apply_reduction
from instil.modules.adapters import match_dtype

ROLES = (("sentence_embedding", "embedding"), ("partner_embedding", "embedding"))
"""Roles of the two texts of a pair; a recording has one embedding, which stands for both."""
Distance = Literal["squared", "cosine"]


def embedding_regression_loss(
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    distance: Distance = "squared",
    reduction: str = "mean",
) -> Tensor:
    """Regression loss of embeddings (Reimers and Gurevych 2020, Eq. 1).

    Args:
        student_embedding: (..., D).
        teacher_embedding: (..., D).
        distance: ``"squared"`` is the mean squared difference over D, ``"cosine"`` one minus the
            cosine similarity.
        reduction: ``"mean"`` or ``"none"`` (one value per embedding).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ or have fewer than two dimensions.

    Example:
        >>> import torch
        >>> embedding_regression_loss(torch.zeros(2, 2), torch.eye(2))
        tensor(0.5000)
    """
    student_embedding, teacher_embedding = require_same_shape(
        student_embedding, teacher_embedding, "embedding_regression_loss"
    )
    if student_embedding.ndim < 2:
        raise ValueError(
            "student_embedding: Expected embeddings (..., D), got the shape "
            f"{tuple(student_embedding.shape)}"
        )
    if distance == "squared":
        rows = student_embedding.flatten(0, -2), teacher_embedding.flatten(0, -2)
        errors = squared_error(*rows).view(student_embedding.shape[:-1])
        return apply_reduction(errors, reduction)
    similarity = F.cosine_similarity(student_embedding, teacher_embedding, dim=-1)
    return apply_reduction(1 - similarity, reduction)


class EmbeddingRegression(Objective):
    """Regression of the teacher's embeddings of both texts of a pair, a recording, or tokens.

    A linear layer projects the student's embeddings if the widths differ.
    """

    card = Card(
        "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
        "https://arxiv.org/abs/2004.09813",
        "EMNLP",
        2020,
        source="features",
        tasks=("sentence_embedding", "speaker_verification", "link_prediction"),
        deviations="The paper's pairs are translations, and both student embeddings regress the "
        "teacher's embedding of the first text. Here the teacher encodes both texts. The cosine "
        "distance is an alternative that libraries offer. A projection is used where the widths "
        "differ; the paper requires equal widths.",
        equation=r"\frac{1}{2} \sum_{u \in \text{pair}} \frac{1}{D} \lVert f^s(u) - f^t(u) "
        r"\rVert_2^2",
        use="For a smaller or shallower encoder that reproduces the teacher's vectors, so that an "
        "index of them remains searchable; use a student of the teacher's width. It needs "
        "texts, not matching pairs, but uses pairs if they are available.",
        pitfalls="The squared distance is divided by D, and the vectors have the teacher's "
        "length: a weight tuned for one teacher does not suit another. A projection is not "
        "exported: a student of another width has its own embedding space.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), ROLES)

    def __init__(
        self,
        distance: Annotated[
            Distance,
            Doc("squared: mean squared difference; cosine: 1 - cos, which ignores the length"),
        ] = "squared",
    ):
        super().__init__()
        self.distance = distance
        self.projection: nn.Module = nn.Identity()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the projection if the widths differ."""
        student_embedding = student_outputs[self.reads["student"][0]]
        teacher_embedding = teacher_outputs[self.reads["teacher"][0]]
        widths = student_embedding.shape[-1], teacher_embedding.shape[-1]
        if widths[0] != widths[1]:
            dtype = to_float32(student_embedding).dtype
            self.projection = nn.Linear(*widths, device=student_embedding.device, dtype=dtype)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        projected = [self._project(student_outputs[role]) for role in self.reads["student"]]
        first, second = (
            embedding_regression_loss(embedding, teacher_outputs[role], self.distance, "none")
            for embedding, role in zip(projected, self.reads["teacher"], strict=True)
        )
        return (first + second) / 2

    def _project(self, embedding: Tensor) -> Tensor:
        projected: Tensor = self.projection(match_dtype(self.projection, to_float32(embedding)))
        return projected
