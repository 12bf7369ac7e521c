"""Base class of losses on pairs of images and texts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from instil.core import Objective, Outputs
from instil.functional.directions import l2_normalize
from instil.modules.adapters import LinearAdapter, linear_adapter

Needs = dict[str, tuple[tuple[str, ...], ...]]

EMBEDDINGS: tuple[tuple[str, ...], ...] = (("image_embedding",), ("text_embedding",))
"""Roles of a side, (N, D) each; row n of one belongs to row n of the other."""
BOTH: Needs = dict.fromkeys(("student", "teacher"), EMBEDDINGS)
"""Needs of a loss that reads the embeddings of both sides."""
WITH_SCALE: Needs = dict.fromkeys(("student", "teacher"), (*EMBEDDINGS, ("logit_scale",)))
"""Needs of a loss that also reads the factor (1,) of each side's similarities."""


def unit_pair(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Image and text embeddings (N, D) of one side as unit vectors."""
    return l2_normalize(outputs["image_embedding"]), l2_normalize(outputs["text_embedding"])


class ImageTextObjective(Objective):
    """Base class of losses on unit embeddings of one width.

    Where the widths differ, a linear layer maps each of the student's two embeddings.

    Attributes:
        projections: linear layer of each role whose widths differ.
    """

    needs: ClassVar = BOTH

    def __init__(self) -> None:
        super().__init__()
        self.projections = nn.ModuleDict()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build the linear layers, from embeddings of a dry batch."""
        for (role,) in EMBEDDINGS:
            self.build_projection(role, student, teacher)

    def build_projection(self, role: str, student: Outputs, teacher: Outputs) -> None:
        """Build the linear layer of a role, if its widths differ."""
        layer = linear_adapter(student[role], teacher[role])
        if isinstance(layer, LinearAdapter):
            self.projections[role] = layer

    def projected(self, student: Outputs) -> tuple[Tensor, Tensor]:
        """Student's image and text embeddings as unit vectors of the teacher's width."""
        image, text = (self.project(role, student[role]) for (role,) in EMBEDDINGS)
        return l2_normalize(image), l2_normalize(text)

    def project(self, role: str, embedding: Tensor) -> Tensor:
        """Map an embedding of the student to the teacher's width, if it is another one."""
        if role not in self.projections:
            return embedding
        projected: Tensor = self.projections[role](embedding)
        return projected
