"""Head of FCOS whose box edges are distributions over distances, as in GFL."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest
from instil.objectives.labels.distribution_focal import distribution_focal_loss
from instil.roles.dense_head import anchors_last

REGRESSIONS = ("distance", "distribution")
NUM_BINS = 17
"""Bins of each edge: distances of 0 to 16 strides, as in GFL."""
FOCAL_WEIGHT = 0.125
"""Weight of the distribution focal loss next to the GIoU loss; GFL has 0.25 and 2."""


class EdgeDistribution(nn.Module):
    """Layer from box features to the distance of each edge, the mean of a distribution.

    Args:
        channels: channels of the features.
        num_bins: number of distances, 0 to ``num_bins - 1`` strides.
    """

    def __init__(self, channels: int, num_bins: int):
        super().__init__()
        self.logits = nn.Conv2d(channels, 4 * num_bins, 3, padding=1)
        nn.init.normal_(self.logits.weight, std=0.01)
        # The first distribution is uniform.
        nn.init.constant_(self.logits.get_parameter("bias"), 0.0)
        self.register_buffer("distances", torch.arange(num_bins).float(), persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """Mean distances (N, 4, H, W) of logits (N, 4 * bins, H, W)."""
        split = logits.view(len(logits), 4, -1, *logits.shape[2:])
        assert isinstance(self.distances, Tensor)
        return torch.einsum("nebhw,b->nehw", split.softmax(2), self.distances.to(logits))

    def forward(self, features: Tensor) -> Tensor:
        return self.mean(self.logits(features))


def distribution_head(
    request: ModelRequest, options: dict[str, Any], channels: int
) -> nn.Module | None:
    """Build the head for ``regression: distribution``; None for the head of torchvision.

    Args:
        request: class and data.
        options: options of the class; ``regression`` and ``bins`` are removed.
        channels: channels of the feature pyramid.

    Raises:
        ValueError: for an unknown regression, for bins without a distribution, or for another class
            than FCOS.
    """
    spec = request.spec
    regression = options.pop("regression", REGRESSIONS[0])
    bins = options.pop("bins", None)
    if regression not in REGRESSIONS:
        raise ValueError(
            f"{spec}: regression: unknown name '{regression}'. Expected distance or distribution."
            f"{suggestion(str(regression), REGRESSIONS, is_listed=True)}"
        )
    if regression == REGRESSIONS[0]:
        if bins is not None:
            raise ValueError(f"{spec}: bins: only regression: distribution has bins")
        return None
    if request.name != "FCOS":
        raise ValueError(
            f"{spec}: regression: only FCOS predicts distances to the edges of a box, which can be "
            "distributions. Expected torchvision:FCOS"
        )
    num_bins = NUM_BINS if bins is None else int(bins)
    if num_bins < 2:
        raise ValueError(f"{spec}: bins: too few. Expected 2 or more, got {bins}")
    head: nn.Module = _head_class()(channels, 1, options["num_classes"])
    branch: Any = head.regression_head
    branch.bbox_reg = EdgeDistribution(channels, num_bins)
    return head


@functools.cache
def _head_class() -> Any:
    from torchvision.models.detection.fcos import FCOSHead  # type: ignore[import-untyped]

    class DistributionHead(FCOSHead):  # type: ignore[misc]
        """Head of FCOS with the distribution focal loss next to its other losses.

        Its outputs have ``edge_logits`` (N, anchors, 4 * bins). ``foreground`` passes on the mask
        (N, anchors) of the anchors with an object, and ``target_boxes`` the boxes (N, M, 4) of the
        labels, filled up with zeros, for hooks.
        """

        def __init__(self, *args: Any):
            super().__init__(*args)
            self.foreground = nn.Identity()
            self.target_boxes = nn.Identity()

        def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
            return {"cls_logits": self.classification_head(x), **_edges(self.regression_head, x)}

        def compute_loss(
            self,
            targets: list[dict[str, Tensor]],
            head_outputs: dict[str, Tensor],
            anchors: list[Tensor],
            matched_idxs: list[Tensor],
        ) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = super().compute_loss(
                targets, head_outputs, anchors, matched_idxs
            )
            matched = torch.stack(matched_idxs)
            foreground = self.foreground(matched >= 0)
            self.target_boxes(pad_sequence([row["boxes"] for row in targets], batch_first=True))
            rows = zip(targets, matched, foreground, strict=True)
            boxes = torch.cat([row["boxes"][index[mask]] for row, index, mask in rows])
            distances = self.box_coder.encode(torch.stack(anchors)[foreground], boxes)
            edges = head_outputs["edge_logits"][foreground]
            return losses | {"distribution_focal": _focal_loss(edges, distances)}

    return DistributionHead


def _edges(branch: Any, levels: list[Tensor]) -> dict[str, Tensor]:
    """Outputs of the regression branch for the levels of the pyramid."""
    features = [branch.conv(level) for level in levels]
    logits = [branch.bbox_reg.logits(level) for level in features]
    means = [anchors_last(branch.bbox_reg.mean(level), 4) for level in logits]
    centres = [anchors_last(branch.bbox_ctrness(level), 1) for level in features]
    edges = [anchors_last(level, level.shape[1]) for level in logits]
    return {
        "bbox_regression": torch.cat(means, 1),
        "bbox_ctrness": torch.cat(centres, 1),
        "edge_logits": torch.cat(edges, 1),
    }


def _focal_loss(edge_logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss of the anchors with an object, 0 without one."""
    total = distribution_focal_loss(edge_logits, distances.to(edge_logits), "none").sum()
    return FOCAL_WEIGHT * total / max(1, len(distances))
