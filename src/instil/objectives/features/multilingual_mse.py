"""Multilingual regression: both texts of a pair at the teacher's embedding of the first one."""

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

Distance = Literal["squared", "cosine"]


def multilingual_mse_loss(
    student_embedding: Tensor,
    student_translation: Tensor,
    teacher_embedding: Tensor,
    distance: Distance = "squared",
    reduction: str = "mean",
) -> Tensor:
    """Multilingual mean squared error (Reimers and Gurevych 2020, Eq. 1).

    Sum of the distances of both student embeddings from the teacher's embedding of the first text.

    Args:
        student_embedding: (N, D), of the texts in the teacher's language.
        student_translation: (N, D), of their translations.
        teacher_embedding: (N, D), of the texts in the teacher's language.
        distance: ``"squared"`` is the mean squared difference over D, ``"cosine"`` one minus the
            cosine similarity.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> multilingual_mse_loss(torch.zeros(2, 2), torch.ones(2, 2), torch.eye(2))
        tensor(1.)
    """
    total: Tensor | None = None
    for embedding in (student_embedding, student_translation):
        pair = require_same_shape(embedding, teacher_embedding, "multilingual_mse_loss")
        if distance == "squared":
            error = squared_error(*pair)
        else:
            error = 1 - F.cosine_similarity(*pair, dim=-1)
        total = error if total is None else total + error
    assert total is not None
    return apply_reduction(total, reduction)


class MultilingualMSE(Objective):
    """Regression of the teacher's embedding of a text by the student's of text and translation.

    Reads the student's ``sentence_embedding`` and ``partner_embedding`` (N, D) and the teacher's
    ``sentence_embedding``. A linear layer projects the student's embeddings if the widths differ.
    """

    card = Card(
        "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
        "https://arxiv.org/abs/2004.09813",
        "EMNLP",
        2020,
        source="features",
        algorithms=("cross-modal",),
        tasks=("sentence_embedding",),
        zero_at_match=False,
        deviations="The error is divided by the width D, as in the authors' code. A projection is "
        "used where the widths differ; the paper requires equal widths. The cosine distance is an "
        "addition.",
        equation=r"\frac{1}{D} \big( \lVert f^s(x) - f^t(x) \rVert_2^2 + \lVert f^s(y) - f^t(x) "
        r"\rVert_2^2 \big), \quad y \text{ the translation of } x",
        use="To extend an embedding model of one language to others. The first text of a pair is "
        "in the teacher's language, its partner is the translation.",
        pitfalls="The teacher also encodes the translations for the evaluation, but this loss "
        "ignores those embeddings. Without projection the student needs the teacher's width. Its "
        "tokenizer must be able to represent the other language.",
    )
    needs: ClassVar = {
        "student": (("sentence_embedding",), ("partner_embedding",)),
        "teacher": (("sentence_embedding",),),
    }

    def __init__(
        self,
        distance: Annotated[
            Distance,
            Doc("squared: mean squared difference; cosine: 1 - cos, which ignores the length"),
        ] = "squared",
    ) -> None:
        super().__init__()
        self.distance = distance
        self.projection: nn.Module = nn.Identity()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the projection if the widths differ."""
        embedding = student_outputs["sentence_embedding"]
        widths = embedding.shape[-1], teacher_outputs["sentence_embedding"].shape[-1]
        if widths[0] != widths[1]:
            dtype = to_float32(embedding).dtype
            self.projection = nn.Linear(*widths, device=embedding.device, dtype=dtype)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        return multilingual_mse_loss(
            self._project(student_outputs["sentence_embedding"]),
            self._project(student_outputs["partner_embedding"]),
            teacher_outputs["sentence_embedding"],
            self.distance,
            "none",
        )

    def _project(self, embedding: Tensor) -> Tensor:
        projected: Tensor = self.projection(match_dtype(self.projection, to_float32(embedding)))
        return projected
