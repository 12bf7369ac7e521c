"""Deep supervision: classifiers on all stages of a network learn from the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Outputs
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


class DeepSupervision(BranchedScheme):
    """Classifiers on the stages before the last that learn from the labels (Lee et al. 2015).

    The student is exported without them. An objective that reads a teacher compares each classifier
    with itself.
    """

    card = Card(
        "Deeply-Supervised Nets",
        "https://arxiv.org/abs/1409.5185",
        "AISTATS",
        2015,
        source="self",
        deviations="The additional classifiers are two convolutions without BatchNorm and a linear "
        "layer. In the paper they are SVMs or softmax layers on the stage itself, and the weight "
        "of their squared hinge loss falls to zero.",
        equation=r"\mathrm{CE}(z^0, y) + \lambda \sum_{i > 0} \mathrm{CE}(z^i, y)",
        use="As a baseline for byot, dks and frskd: the same additional classifiers without any "
        "distillation between them.",
        pitfalls="Shallow stages that must classify lose features that the deeper stages need: "
        "keep the weight small for networks of few layers.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        branch_weight: Annotated[
            NonNegative,
            Doc(
                "weight of the loss of each additional classifier; the paper lets it fall during "
                "training"
            ),
        ] = 0.3,
    ):
        super().__init__(student, objectives)
        self.branch_weight = branch_weight

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        return [[detach_outputs(end)] for end in ends], {}
