"""DKS: classifiers on all stages of a network learn from each other."""

from __future__ import annotations

from torch import Tensor

from instil.core import Batch, Card, Outputs
from instil.schemes.bases.branches import BranchedScheme
from instil.schemes.bases.peers import detach_outputs


class DKS(BranchedScheme):
    """A classifier on every stage that learns from all others (Sun et al. 2019).

    The deepest classifier learns from the shallower ones, too. The objectives apply to all
    classifiers: cross_entropy and kd. The losses of a classifier against the others are averaged.
    The student is exported unchanged.
    """

    card = Card(
        "Deeply-supervised Knowledge Synergy",
        "https://arxiv.org/abs/1906.00675",
        "CVPR",
        2019,
        source="self",
        algorithms=("multi-teacher",),
        deviations="The paper adds up the losses against the other classifiers; here they are "
        "averaged. Its weight 1 is a weight of kd equal to the number of classifiers minus one. A "
        "classifier is two convolutions without BatchNorm and a linear layer; in the paper it has "
        "blocks of the network.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + "
        r"\frac{1}{K-1} \sum_{i \ne j} T^2 \mathrm{KL}(p^j_T \Vert p^i_T)",
        use="For training without a teacher, in one run, where shallow classifiers can also "
        "improve the deepest one.",
        pitfalls="Very shallow classifiers are poor teachers of the deepest. In byot only the "
        "deepest one teaches.",
    )

    def branch_stages(self, stages: int) -> list[int]:
        return list(range(stages - 1))

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        fixed = [detach_outputs(end) for end in ends]
        return [fixed[:i] + fixed[i + 1 :] for i in range(len(fixed))], {}
