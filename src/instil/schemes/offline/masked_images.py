"""Masked images: the student does not see some patches, the teacher sees the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Outputs, Scheme, Teacher, Update
from instil.functional.hidden_squares import tube_mask
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
        image = _require_images(batch, self.patch)
        teacher = self.teacher_outputs(batch, grad)
        height, width = image.shape[2:]
        grid = -(-height // self.patch), -(-width // self.patch)
        uniform = keyed_uniform(batch, 1 + grid[0] * grid[1], STREAM)
        mask = tube_mask(uniform[:, 1:].view(-1, *grid), self.ratio, self.patch)
        is_masked = uniform[:, :1, None] < self.probability
        mask = (mask[:, :height, :width] * is_masked).to(image.dtype)
        student = self.student(batch | {"image": hide_patches(image, mask)})
        return student | {"patch_mask": mask}, teacher

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)


def hide_patches(image: Tensor, mask: Tensor) -> Tensor:
    """Replace hidden pixels by the mean of their channel.

    Args:
        image: (N, C, H, W).
        mask: (N, H, W), 1 for a hidden pixel and 0 for others.

    Returns:
        (N, C, H, W).

    Example:
        >>> import torch
        >>> hide_patches(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([[[[1., 2.]]]])
    """
    mean = image.mean((2, 3), keepdim=True)
    return torch.where(mask[:, None] > 0, mean, image)


def _require_images(batch: Batch, patch: int) -> Tensor:
    """Return the images of a batch if patches fit into them."""
    image: Tensor | None = batch.get("image")
    if image is None or image.ndim != 4:
        shape = "none" if image is None else str(tuple(image.shape))
        raise ValueError(
            f"scheme: patches are parts of images. Expected 'image' (N, C, H, W) in the batch, got "
            f"{shape}. Use scheme: offline for other data"
        )
    if 2 * patch > min(image.shape[2:]):
        raise ValueError(
            f"scheme.patch: a patch is too large. Expected at most half of {min(image.shape[2:])} "
            f"pixels, got {patch}"
        )
    return image
