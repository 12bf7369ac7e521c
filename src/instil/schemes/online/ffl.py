"""FFL: sub-networks on one trunk learn from the classifier of their fused feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, to_float32
from instil.functional.pooling import global_average_pool
from instil.schemes.bases.branches import Branch, BranchedScheme, stage_features


class MapBranch(Branch):
    """A branch that also returns its feature map, as the only level of ``features``."""

    def forward(self, stage: Tensor) -> Outputs:
        feature_map = self.body(stage)
        embedding = global_average_pool(feature_map)
        return {
            "logits": self.head(embedding),
            "embedding": embedding,
            "features": (feature_map,),
        }


class FeatureFusion(nn.Module):
    """Classifier of the concatenated feature maps of several sub-networks (Kim et al. 2020).

    A depthwise 3x3 convolution and a 1x1 convolution, each followed by ReLU, reduce the
    concatenation to the channels of one sub-network; the mean over positions is classified. Tokens
    and vectors have no neighbours on a grid, so one linear map replaces both convolutions.

    Args:
        feature_map: map of one sub-network, (N, C, H, W), (N, L, C) or (N, C).
        num_maps: number of sub-networks.
        num_classes: number of classes.
    """

    def __init__(self, feature_map: Tensor, num_maps: int, num_classes: int):
        super().__init__()
        self.axis = 1 if feature_map.ndim == 4 else -1
        channels = feature_map.shape[self.axis]
        width = num_maps * channels
        self.body = (
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width),
                nn.ReLU(),
                nn.Conv2d(width, channels, 1),
                nn.ReLU(),
            )
            if feature_map.ndim == 4
            else nn.Sequential(nn.Linear(width, channels), nn.ReLU())
        )
        self.head = nn.Linear(channels, num_classes)
        self.to(feature_map.device, to_float32(feature_map).dtype)

    def forward(self, feature_maps: Sequence[Tensor]) -> Outputs:
        """Classify the fused maps.

        Args:
            feature_maps: one map per sub-network, all of one shape.

        Returns:
            ``logits`` (N, num_classes) and ``embedding`` (N, C).
        """
        fused = self.body(torch.cat(list(feature_maps), self.axis))
        embedding = global_average_pool(fused)
        return {"logits": self.head(embedding), "embedding": embedding}


class FFL(BranchedScheme):
    """Sub-networks that learn from the classifier of their fused features (Kim et al. 2020).

    The student and ``num_branches`` - 1 branches share all stages but the last. A fusion module
    classifies their concatenated feature maps. The mean of the sub-networks' logits teaches the
    fused classifier, and the fused classifier teaches each sub-network; no gradient reaches a
    teacher. The student is exported unchanged.

    The objectives apply to the sub-networks and to the fused classifier: cross_entropy and
    kd (T = 3).
    """

    card = Card(
        "Feature Fusion for Online Mutual Knowledge Distillation",
        "https://arxiv.org/abs/1904.09058",
        "ICPR",
        2020,
        source="online",
        algorithms=("multi-teacher",),
        deviations="The form with a shared trunk, as in the authors' code; the paper also fuses "
        "separate networks. A branch is two convolutions and a linear layer; the paper repeats the "
        "last stage. Neither branches nor fusion have BatchNorm, which makes the samples of a "
        "batch depend on each other. The authors' code trains the fusion with a separate weight "
        "decay and ramps up the distillation weight; here that is a schedule in the recipe.",
        equation=r"\sum_i \mathrm{CE}(z^i, y) + \mathrm{CE}(z^f, y) + "
        r"T^2 \mathrm{KL}(p_T(\bar z) \Vert p^f_T) + T^2 \sum_i \mathrm{KL}(p^f_T \Vert p^i_T)",
        use="For training without a teacher, in one run, where an ensemble of logits is a weak "
        "teacher: the fusion reads the feature maps.",
        pitfalls="When the sub-networks become similar, the fusion adds little. Untrained "
        "sub-networks give random targets: raise the weight of kd from 0 by a schedule. The fusion "
        "is not exported.",
    )

    def __init__(
        self,
        student: nn.Module,
        objectives: Objectives | Mapping[str, Objective],
        num_branches: Annotated[
            int, Ge(2), Doc("number of sub-networks, the student included (2 in the paper)")
        ] = 2,
    ):
        super().__init__(student, objectives)
        self.num_branches = num_branches
        self.fusion: FeatureFusion | None = None
        self.learners["student"] += ("fusion",)

    def branch_stages(self, stages: int) -> list[int]:
        return [stages - 2] * (self.num_branches - 1)

    def make_branches(self, stages: tuple[Tensor, ...], classes: int) -> Sequence[nn.Module]:
        # The fused classifier is not a branch: it reads the maps of all branches. The order
        # of creation decides the random initial weights.
        self.fusion = FeatureFusion(stages[-1], self.num_branches, classes)
        origins = self.branch_stages(len(stages))
        return [MapBranch(stages[origin], stages[-1], classes) for origin in origins]

    def branch_outputs(self, outputs: Outputs) -> list[Outputs]:
        """Compute the outputs of the sub-networks (student first) and of the fused classifier.

        Args:
            outputs: outputs of the student.

        Returns:
            ``num_branches`` + 1 outputs, the fused classifier's last.
        """
        assert self.fusion is not None
        ends = super().branch_outputs(outputs)
        deepest = stage_features(outputs)[-1]
        feature_maps = [deepest, *(end["features"][-1] for end in ends[1:])]
        return [*ends, self.fusion(feature_maps)]

    def teachers_for(
        self, ends: list[Outputs], stages: tuple[Tensor, ...], batch: Batch
    ) -> tuple[list[list[Outputs]], dict[str, Tensor]]:
        *sub_networks, fused = ends
        logits = torch.stack([to_float32(end["logits"]) for end in sub_networks])
        ensemble: Outputs = {"logits": logits.mean(0).detach()}
        fused_teacher: Outputs = {"logits": to_float32(fused["logits"]).detach()}
        return [*([fused_teacher] for _ in sub_networks), [ensemble]], {}
