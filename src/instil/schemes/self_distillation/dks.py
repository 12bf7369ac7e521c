"""Classifiers after every stage of a net learn from each other."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


class DKS(BranchedScheme):
    """A classifier after every stage, each with all others as its teachers, the deepest too (Sun et al. 2019). The student is exported as it is.

    The objectives are those of all classifiers: cross_entropy and kd. A classifier's losses against the others are averaged.
    """

    card = Card(
        "Deeply-supervised Knowledge Synergy",
        "https://arxiv.org/abs/1906.00675",
        "CVPR",
        2019,
        source="self",
        algorithms=("multi-teacher",),
        deviations="The paper adds up the losses against the other classifiers; here they are averaged, so that its weight 1 is a weight of kd "
        "of the number of classifiers less one. A classifier is two convolutions without BatchNorm and a linear layer, the paper's has blocks of the "
        "net's own.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + \frac{1}{K-1} \sum_{i \ne j} T^2 \mathrm{KL}(p^j_T \Vert p^i_T)",
        use="A net without any teacher, trained in one go, where shallow classifiers may tell the deepest something too.",
        pitfalls="Very shallow classifiers are poor teachers of the deepest; in byot only the deepest teaches.",
    )

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        fixed = [detach_outputs(end) for end in ends]
        return [fixed[:i] + fixed[i + 1 :] for i in range(len(fixed))], {}
