"""A net refines its own features by a small pyramid, and learns from what it finds."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, to_float32
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import BranchedScheme, stage_features
from instil.schemes.bases.peers import detach_outputs


class Refiner(nn.Module):
    """Of a net's stages refined ones of the same shapes, and a classifier of the last: a path down to the shallowest and one up again (Ji et al.
    2021, Eq. 1 and 2)."""

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
        passed = [lateral[-1]]
        for i in reversed(range(len(stages) - 1)):
            passed.insert(0, self.after_down[i]((lateral[i] + self.down[i](passed[0])).relu()))
        refined = [passed[0]]
        for i in range(1, len(stages)):
            refined.append(
                self.after_up[i - 1]((lateral[i] + passed[i] + self.up[i - 1](refined[-1])).relu())
            )
        embedding = global_average_pool(refined[-1])
        return {"logits": self.head(embedding), "embedding": embedding, "features": tuple(refined)}


class FRSKD(BranchedScheme):
    """A self-teacher on the student's stages: it learns from the label, and the student from its logits and its refined features (Ji et al. 2021).

    The student is exported as it is, without the self-teacher.

    The objectives are cross_entropy, of both, and those of the student against the self-teacher: kd (T = 4), and attention_transfer for the
    refined ``features``, which have the shapes of the student's own.
    """

    card = Card(
        "Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation",
        "https://arxiv.org/abs/2103.08273",
        "CVPR",
        2021,
        source="self",
        labels=("single", "multi", "binary"),
        deviations="The refined stages are as wide as the net's own, and each way into a sum has a linear map of its own in place of a learned "
        "weight. Convolutions are plain and without BatchNorm. As in a re-implementation, the self-teacher's label loss reaches the net's "
        "stages; all this was not checked against the authors' code.",
        equation=r"\mathrm{CE}(z^s, y) + \mathrm{CE}(z^r, y) + \alpha T^2 \mathrm{KL}(p^r_T \Vert p^s_T) + \beta \sum_i \Vert \phi(R_i) - \phi(F_i) "
        r"\Vert^2",
        use="A net of stages on a grid without any teacher, in one run, where byot's shallow classifiers are too poor: here deep stages tell the "
        "shallow ones where to look.",
        pitfalls="The pyramid is trained with the net, so that it teaches little at first; give the weights of its losses a schedule. Its gradient "
        "adds to that of the labels on all stages.",
    )

    def branch_stages(self, stages: int) -> list[int]:
        return []

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> list[nn.Module]:
        return [Refiner(stages, classes)]

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        stages = stage_features(outputs)
        own = {
            "logits": outputs["logits"],
            "embedding": global_average_pool(to_float32(stages[-1])),
            "features": stages,
        }
        return [own, self.branches[0](stages)]

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        refined = detach_outputs(ends[1])
        return [[refined], [refined]], {}
