"""SimCC: keypoints as a classification of the column and of the row."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.logits import apply_reduction
from instil.functional.pixel_values import masked_mean
from instil.functional.positions import gaussian_bins, known_keypoints
from instil.items import Items


@check_bounds
def simcc_loss(
    logits: Tensor,
    target: Tensor,
    size: float | Tensor,
    sigma: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy with a distribution over the bins around a position (Li et al. 2022).

    Args:
        logits: (..., bins).
        target: positions (...) in pixels.
        size: side of the image in pixels, or a tensor that broadcasts to the positions.
        sigma: standard deviation of the target distribution in pixels, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per position).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Example:
        >>> import torch
        >>> simcc_loss(torch.zeros(1, 4), torch.tensor([1.0]), 4.0)
        tensor(1.3863)
    """
    log_probability = to_float32(logits).log_softmax(-1)
    bins = gaussian_bins(to_float32(target), logits.shape[-1], size, sigma)
    return apply_reduction(-(bins * log_probability).sum(-1), reduction)


class SimCC(Objective):
    """Cross-entropy of the column and the row of each keypoint with the label.

    Reads ``x_logits`` (N, K, columns) and ``y_logits`` (N, K, rows), ``label`` (N, K, 2) in pixels,
    where -100 or NaN marks an unknown keypoint, and ``image_size`` (N, 2), width and height. Items
    are images; the value is the mean over their known keypoints.
    """

    items = Items(per_sample=True, labelled=True)
    card = Card(
        "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation",
        "https://arxiv.org/abs/2107.03332",
        "ECCV",
        2022,
        source="labels",
        tasks=("pose",),
        labels=("real",),
        zero_at_match=False,
        deviations="The target is a normal density over the bins that sums to 1; that of the "
        "authors' code is cut at the border without a new sum. Its width is 2 to 3 pixels there, "
        "and the loss is the KL divergence over the number of bins. Known keypoints of an image "
        "are averaged.",
        equation=r"-\sum_{a \in \{x, y\}} \sum_b q_{ab} \log p^s_{ab}, \quad q_{ab} \propto "
        r"\exp\left( -\frac{(c_b - y_a)^2}{2 \sigma^2} \right)",
        use="The label loss of pose networks whose output is a distribution over columns and one "
        "over rows, such as pose_estimator, and of heatmaps, whose marginals these are.",
        pitfalls="The value is at least the entropy of the targets. Choose sigma near the size of "
        "a bin for small images: a larger one blurs the positions.",
    )
    needs: ClassVar = {"student": (("x_logits",), ("y_logits",)), "teacher": ()}

    def __init__(
        self,
        sigma: Annotated[
            Positive, Doc("standard deviation of the target distribution in pixels")
        ] = 1.0,
    ):
        super().__init__()
        self.sigma = sigma

    def weight(self, batch: Batch) -> Tensor:
        if "label" not in batch:
            return super().weight(batch)
        label = batch["label"].masked_fill(~known_keypoints(batch)[..., None], UNLABELLED)
        return super().weight(batch | {"label": label})

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        is_known = known_keypoints(batch)
        target = torch.where(is_known[..., None], to_float32(batch["label"]), 0.0)
        sizes = batch["image_size"].to(target)
        values = torch.zeros(is_known.shape, device=target.device)
        for axis, role in enumerate(("x_logits", "y_logits")):
            logits = torch.where(is_known[..., None], to_float32(student[role]), 0.0)
            size = sizes[:, axis, None]
            values = values + simcc_loss(logits, target[..., axis], size, self.sigma, "none")
        return masked_mean(values, is_known)
