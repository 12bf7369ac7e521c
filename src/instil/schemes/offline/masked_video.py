"""Masked video distillation: the student sees a few tubes of a clip, the teachers all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.hidden_squares import hide_squares, require_squares, tube_mask
from instil.functional.keyed_random import keyed_uniform

TUBES = "scheme.masked_video.tubes"
"""Random stream of the hidden tubes."""


class MaskedVideo(Scheme):
    """The student sees a clip in which most tubes are hidden; the teachers see the whole clip.

    A tube is a square of pixels in all frames. Hidden pixels have the mean value of their channel
    in the clip. The student has the further role ``tube_mask`` (N, H, W), 1 for a hidden pixel,
    which ``mvd`` reads. Hidden tubes depend on seed, step and index.

    Raises:
        ValueError: if the student reads no clips (N, C, T, H, W), or a tube is larger than half of
            a frame.
    """

    card = Card(
        "Masked Video Distillation: Rethinking Masked Feature Modeling for Self-supervised Video "
        "Representation Learning",
        "https://arxiv.org/abs/2212.04500",
        "CVPR",
        2023,
        source="offline",
        tasks=("video_classification",),
        equation=r"\mathcal{L}\big(s(\tilde{x}), t(x)\big), \quad \tilde{x}_{cthw} = "
        r"\begin{cases} \bar{x}_c & m_{hw} = 1 \\ x_{cthw} & \text{else} \end{cases}",
        use="Pretraining of a video student on clips without labels, with the objective mvd. Train "
        "it on labels in a second stage. Other objectives compare predictions for a clip that is "
        "mostly hidden with those for the whole clip.",
        pitfalls="Evaluation uses whole clips, which the student has never seen in this stage: "
        "statistics of BatchNorm differ. Fine-tune it afterwards. The published share of 0.9 is "
        "for 14 x 14 tubes of a large clip; small clips need a smaller one.",
        deviations="Hidden tubes are replaced by the mean of the clip, so that the student may be "
        "any network. The student of the paper is a transformer that leaves out hidden tokens.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        objectives: Objectives | Mapping[str, Objective],
        ratio: Annotated[
            float, Gt(0), Lt(1), Doc("share of the tubes that the student does not see")
        ] = 0.9,
        patch: Annotated[int, Ge(1), Doc("height and width of a tube, in pixels")] = 4,
    ):
        super().__init__(student, teacher, objectives)
        self.ratio = ratio
        self.patch = patch

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        teacher = self.teacher_outputs(batch, grad)
        key = getattr(self.student.call, "reads", {}).get("video", "video")
        video = require_squares(batch, key, "clip", self.patch)
        grid = [-(-size // self.patch) for size in video.shape[3:]]
        uniform = keyed_uniform(batch, grid[0] * grid[1], TUBES)
        mask = tube_mask(uniform.view(-1, *grid), self.ratio, self.patch)
        mask = mask[:, : video.shape[3], : video.shape[4]].to(video.dtype)
        student = self.student(batch | {key: hide_squares(video, mask)})
        return student | {"tube_mask": mask}, teacher

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
