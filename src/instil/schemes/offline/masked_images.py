"""Masked images: the student does not see some patches, the teacher sees the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from torch import nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.hidden_squares import hide_squares, require_squares, tube_mask
from instil.functional.keyed_random import keyed_uniform

STREAM = "scheme.masked_images"
"""Random stream of the hidden patches."""


class MaskedImages(Scheme):
    """The student sees some images without a part of their patches; the teacher sees all of them.

    A patch is a square of pixels. Hidden pixels have the mean value of their channel in the image.
    The student has the further role ``patch_mask`` (N, H, W), 1 for a hidden pixel, which
    ``dinov2`` reads. Hidden patches depend on seed, step and index.

    Raises:
        ValueError: if the batch has no ``image`` (N, C, H, W), or a patch is larger than half of
            the image.
    """

    card = Card(
        "DINOv2: Learning Robust Visual Features without Supervision",
        "https://arxiv.org/abs/2304.07193",
        "TMLR",
        2024,
        source="offline",
        tasks=("representation", "classification"),
        equation=r"\mathcal{L}\big(s(\tilde{x}), t(x)\big), \quad \tilde{x}_{chw} = "
        r"\begin{cases} \bar{x}_c & m_{hw} = 1 \\ x_{chw} & \text{else} \end{cases}",
        use="For a student whose local features matter, with the objective dinov2. Other "
        "objectives compare outputs for an image that is partly hidden with those for the whole "
        "image.",
        pitfalls="Evaluation uses whole images: keep the probability below 1, so that statistics "
        "of BatchNorm see them too. A patch that is smaller than a position of the deepest level "
        "hides only a part of it.",
        deviations="Hidden patches are replaced by the mean of the image, so that the student may "
        "be any network; the paper has a learned mask token. The share of hidden patches is fixed; "
        "the paper draws it between 0.1 and 0.5, and its distillation from a frozen teacher masks "
        "nothing.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        objectives: Objectives | Mapping[str, Objective],
        ratio: Annotated[
            float, Gt(0), Lt(1), Doc("share of the patches that are hidden in a masked image")
        ] = 0.3,
        probability: Annotated[float, Ge(0), Le(1), Doc("share of the images that are masked")] = (
            0.5
        ),
        patch: Annotated[int, Ge(1), Doc("height and width of a patch, in pixels")] = 16,
    ):
        super().__init__(student, teacher, objectives)
        self.ratio = ratio
        self.probability = probability
        self.patch = patch

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        image = require_squares(batch, "image", "image", self.patch)
        teacher = self.teacher_outputs(batch, grad)
        height, width = image.shape[2:]
        grid = -(-height // self.patch), -(-width // self.patch)
        uniform = keyed_uniform(batch, 1 + grid[0] * grid[1], STREAM)
        mask = tube_mask(uniform[:, 1:].view(-1, *grid), self.ratio, self.patch)
        is_masked = uniform[:, :1, None] < self.probability
        mask = (mask[:, :height, :width] * is_masked).to(image.dtype)
        student = self.student(batch | {"image": hide_squares(image, mask)})
        return student | {"patch_mask": mask}, teacher

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
