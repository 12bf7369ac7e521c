"""FRSKD: self-distillation from a feature pyramid on the stages of the student."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.functional.pooling import global_average_pool
from instil.modules.stage_adapter import StageAdapter
from instil.schemes.bases.branches import BranchedScheme, stage_features
from instil.schemes.bases.peers import detach_outputs


class RefinerBlock(nn.Module):
    """Convolution (linear layer for tokens and vectors), layer norm and ReLU.

    Args:
        source: example of the input stage.
        target: example of the output stage.
        kernel: size of the convolution's kernel.
    """

    def __init__(self, source: Tensor, target: Tensor, kernel: int = 1):
        super().__init__()
        self.adapter = StageAdapter(source, target, kernel)
        is_map = target.ndim >= 4
        width = target.shape[1 if is_map else -1]
        # Layer norm instead of BatchNorm, which would couple the samples of a batch.
        norm = nn.GroupNorm(1, width) if is_map else nn.LayerNorm(width)
        self.norm = norm.to(source.device, to_float32(source).dtype)

    def forward(self, stage: Tensor) -> Tensor:
        refined: Tensor = self.norm(self.adapter(stage))
        return refined.relu()


class Refiner(nn.Module):
    """Feature pyramid with a top-down and a bottom-up path (Ji et al. 2021, Eqs. 1 and 2).

    It maps the stages of a network to refined stages on the same grids, and classifies the last.

    Args:
        stages: stages of the network for one batch.
        classes: number of classes.
        width: channels of a refined stage, as a multiple of those of the stage.
    """

    def __init__(self, stages: tuple[Tensor, ...], classes: int, width: int = 2):
        super().__init__()
        wide = [_widen(stage, width) for stage in stages]
        self.lateral = nn.ModuleList(map(RefinerBlock, stages, wide))
        self.down = nn.ModuleList(StageAdapter(deeper, stage) for stage, deeper in pairwise(wide))
        self.up = nn.ModuleList(StageAdapter(stage, deeper) for stage, deeper in pairwise(wide))
        self.after_down = nn.ModuleList(RefinerBlock(stage, stage, 3) for stage in wide[:-1])
        self.after_up = nn.ModuleList(RefinerBlock(stage, stage, 3) for stage in wide[1:])
        deepest = global_average_pool(to_float32(wide[-1]))
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


def _widen(stage: Tensor, factor: int) -> Tensor:
    """Example of a stage with ``factor`` times the channels."""
    axis = 1 if stage.ndim >= 4 else -1
    return stage.repeat_interleave(factor, axis)


class FRSKD(BranchedScheme):
    """A self-teacher that refines the student's stages (Ji et al. 2021).

    The self-teacher learns from the labels. The student learns from its logits and its refined
    features, and is exported without it.

    The objectives are cross_entropy for both, and losses of the student against the self-teacher:
    kd (T = 4) and attention_transfer. The refined ``features`` have the grids of the student's.
    """

    card = Card(
        "Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation",
        "https://arxiv.org/abs/2103.08273",
        "CVPR",
        2021,
        source="self",
        labels=("single", "multi", "binary"),
        deviations="Each input of a sum has a separate linear map instead of a learned weight. "
        "Each convolution is plain, once instead of twice depthwise, and layer norm replaces "
        "BatchNorm. As in the authors' code, refined stages are twice as wide and end with a ReLU, "
        "and the label loss of the self-teacher reaches the stages of the network.",
        equation=r"\mathrm{CE}(z^s, y) + \mathrm{CE}(z^r, y) + "
        r"\alpha T^2 \mathrm{KL}(p^r_T \Vert p^s_T) + "
        r"\beta \sum_i \Vert \phi(R_i) - \phi(F_i) \Vert^2",
        use="For training without a teacher, in one run, for networks with stages on a grid where "
        "the shallow classifiers of byot are too poor. Here deep stages give the shallow ones "
        "their attention maps as targets.",
        pitfalls="The self-teacher is as good as the labels make it. With a label on few samples, "
        "its soft targets outweigh the labels and the student learns nothing: use labelled data. "
        "The published weight of attention_transfer, 100, is for grids of 32 x 32 to 4 x 4. The "
        "loss is a mean over positions, so that smaller grids need a smaller weight.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        width: Annotated[
            int, Ge(1), Doc("channels of a refined stage, as a multiple of those of the stage")
        ] = 2,
    ):
        super().__init__(student, objectives)
        self.width = width

    def branch_stages(self, stages: int) -> list[int]:
        return []

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> list[nn.Module]:
        return [Refiner(stages, classes, self.width)]

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
