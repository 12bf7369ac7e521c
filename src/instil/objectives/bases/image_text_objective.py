"""Base class of losses on pairs of images and texts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from instil.core import Objective, Outputs, to_float32
from instil.functional.directions import l2_normalize
from instil.modules.adapters import match_dtype

Needs = dict[str, tuple[tuple[str, ...], ...]]


EMBEDDINGS: tuple[tuple[str, ...], ...] = (("image_embedding",), ("text_embedding",))
"""The roles of a side, (N, D) each; row n of the one belongs to row n of the other."""


BOTH: Needs = dict.fromkeys(("student", "teacher"), EMBEDDINGS)


WITH_SCALE: Needs = dict.fromkeys(("student", "teacher"), (*EMBEDDINGS, ("logit_scale",)))
"""What a loss reads of both sides: the embeddings, and with them what the side's similarities are multiplied with, (1,)."""


def unit_pair(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Image and text embeddings (N, D) of one side as unit vectors."""
    return l2_normalize(outputs["image_embedding"]), l2_normalize(outputs["text_embedding"])


class ImageTextObjective(Objective):
    """A loss on unit embeddings of one width: where the student's are of another, a learned linear layer for each of its two embeddings."""

    needs: ClassVar = BOTH

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The projections, where the widths differ."""
        for (role,) in EMBEDDINGS:
            mine, theirs = student[role], teacher[role]
            if mine.shape[1] != theirs.shape[1]:
                self.projections[role] = nn.Linear(
                    mine.shape[1], theirs.shape[1], device=mine.device, dtype=to_float32(mine).dtype
                )

    def projected(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """The student's image and text embeddings as unit vectors of the teacher's width."""
        image, text = (self._project(role, student[role]) for (role,) in EMBEDDINGS)
        return l2_normalize(image), l2_normalize(text)

    def _project(self, role: str, embedding: Tensor) -> Tensor:
        if role not in self.projections:
            return embedding
        layer = self.projections[role]
        projected: Tensor = layer(match_dtype(layer, to_float32(embedding)))
        return projected
