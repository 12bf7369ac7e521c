"""A classifier after every stage learns from the labels; those before the last are dropped afterwards."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Outputs
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


class DeepSupervision(BranchedScheme):
    """Classifiers after the stages before the last learn beside the student's own, from the labels alone (Lee et al. 2015). The student is exported.

    ``branch_weight``: of the loss of each of those classifiers; the paper lets it fall while training.

    What stands beside the label's loss among the objectives and looks at a teacher sees each classifier itself.
    """

    card = Card(
        "Deeply-Supervised Nets",
        "https://arxiv.org/abs/1409.5185",
        "AISTATS",
        2015,
        source="self",
        deviations="The further classifiers are two convolutions without BatchNorm and a linear layer; the paper's are SVMs or softmax layers on the "
        "stage itself, whose squared hinge loss is let fall to zero.",
        equation=r"\mathrm{CE}(z^0, y) + \lambda \sum_{i > 0} \mathrm{CE}(z^i, y)",
        use="What byot, dks and frskd must beat: the same further ends without any distillation between them.",
        pitfalls="Shallow stages that must classify lose what the deeper ones would have made of them: keep the weight small where the net is not "
        "deep.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        branch_weight: NonNegative = 0.3,
    ):
        super().__init__(student, objectives)
        self.branch_weight = branch_weight

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        return [[detach_outputs(end)] for end in ends], {}
