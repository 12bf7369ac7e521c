"""FRSKD: self-distillation from a feature pyramid on the stages of the student."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import BranchedScheme, stage_features
from instil.schemes.bases.peers import detach_outputs


class Refiner(nn.Module):
    """Feature pyramid with a top-down and a bottom-up path (Ji et al. 2021, Eqs. 1 and 2).

    It maps the stages of a network to refined stages of the same shapes, and classifies the last.

    Args:
        stages: stages of the network for one batch.
        classes: number of classes.
    """

    def __init__(self, stages: tuple[Tensor, ...], classes: int):
        super().__init__()
        self.lateral = nn.ModuleList(StageAdapter(stage, stage) for stage in stages)
        self.down = nn.ModuleList(StageAdapter(deeper, stage) for stage, deeper in pairwise(stages))
        self.up = nn.ModuleList(StageAdapter(stage, deeper) for stage, deeper in pairwise(stages))
        self.after_down = nn.ModuleList(StageAdapter(stage, stage, 3) for stage in stages[:-1])
        self.after_up = nn.ModuleList(StageAdapter(stage, stage, 3) for stage in stages[1:])
        deepest = global_average_pool(to_float32(stages[-1]))
        self.head = nn.Linear(deepest.shape[1], classes).to(deepest.device, deepest.dtype)

    def forward(self, stages: tuple[Tensor, ...]) -> Outputs:
        lateral = [layer(stage) for layer, stage in zip(self.lateral, stages, strict=True)]
        top_down = [lateral[-1]]
        for i in reversed(range(len(stages) - 1)):
            fused = (lateral[i] + self.down[i](top_down[0])).relu()
            top_down.insert(0, self.after_down[i](fused))
        refined = [top_down[0]]
        for i in range(1, len(stages)):
            fused = (lateral[i] + top_down[i] + self.up[i - 1](refined[-1])).relu()
            refined.append(self.after_up[i - 1](fused))
        embedding = global_average_pool(refined[-1])
        return {"logits": self.head(embedding), "embedding": embedding, "features": tuple(refined)}


class FRSKD(BranchedScheme):
    """A self-teacher that refines the student's stages (Ji et al. 2021).

    The self-teacher learns from the labels. The student learns from its logits and its refined
    features, and is exported without it.

    The objectives are cross_entropy for both, and losses of the student against the self-teacher:
    kd (T = 4) and attention_transfer. The refined ``features`` have the shapes of the student's.
    """

    card = Card(
        "Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation",
        "https://arxiv.org/abs/2103.08273",
        "CVPR",
        2021,
        source="self",
        labels=("single", "multi", "binary"),
        deviations="The refined stages are as wide as those of the network, and each input of a "
        "sum has a separate linear map instead of a learned weight. Convolutions are plain and "
        "without BatchNorm. As in a re-implementation, the label loss of the self-teacher reaches "
        "the stages of the network. None of this was checked against the authors' code.",
        equation=r"\mathrm{CE}(z^s, y) + \mathrm{CE}(z^r, y) + "
        r"\alpha T^2 \mathrm{KL}(p^r_T \Vert p^s_T) + "
        r"\beta \sum_i \Vert \phi(R_i) - \phi(F_i) \Vert^2",
        use="For training without a teacher, in one run, for networks with stages on a grid where "
        "the shallow classifiers of byot are too poor. Here deep stages give the shallow ones "
        "their attention maps as targets.",
        pitfalls="The pyramid is trained together with the network and teaches little at first: "
        "give the weights of its losses a schedule. Its gradient is added to that of the labels on "
        "all stages.",
    )

    def branch_stages(self, stages: int) -> list[int]:
        return []

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> list[nn.Module]:
        return [Refiner(stages, classes)]

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        stages = stage_features(outputs)
        student_end = {
            "logits": outputs["logits"],
            "embedding": global_average_pool(to_float32(stages[-1])),
            "features": stages,
        }
        return [student_end, self.branches[0](stages)]

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        refined = detach_outputs(ends[1])
        return [[refined], [refined]], {}
