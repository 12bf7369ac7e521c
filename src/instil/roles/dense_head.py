"""Head of a one-stage detector, as a role of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Levels = Sequence[Tensor]
"""Feature maps (N, C, H, W) of all pyramid levels."""


@dataclass(frozen=True)
class DenseHead:
    """Branches for classes and boxes that all levels of a feature pyramid share.

    Attributes:
        class_blocks: convolutions before each ReLU of the class branch.
        box_blocks: the same of the box branch.
        class_logits: layer from the last class features to logits (N, A * C, H, W).
        box_codes: layer from the last box features to codes (N, A * 4, H, W).
        num_classes: number of classes C.
        decode: function from codes (N, anchors, 4) to boxes of the same shape, as left, top, right
            and bottom in pixels.
    """

    class_blocks: Sequence[nn.Module]
    box_blocks: Sequence[nn.Module]
    class_logits: nn.Module
    box_codes: nn.Module
    num_classes: int
    decode: Callable[[Tensor], Tensor]

    def finish(
        self, class_features: Levels, box_features: Levels, position: int
    ) -> tuple[Tensor, Tensor]:
        """Run the rest of the head.

        Args:
            class_features: features of the class branch after ``position`` blocks, before the
                ReLU.
            box_features: the same of the box branch.
            position: number of blocks that have run; 0 for features of the pyramid.

        Returns:
            Logits (N, anchors, C) and boxes (N, anchors, 4).
        """
        logits = [
            anchors_last(
                self.class_logits(_run(self.class_blocks, level, position)), self.num_classes
            )
            for level in class_features
        ]
        codes = [
            anchors_last(self.box_codes(_run(self.box_blocks, level, position)), 4)
            for level in box_features
        ]
        return torch.cat(logits, 1), self.decode(torch.cat(codes, 1))


def anchors_last(maps: Tensor, size: int) -> Tensor:
    """Return maps (N, A * size, H, W) as (N, H * W * A, size), one row per anchor.

    Args:
        maps: output of the last layer for one level.
        size: numbers per anchor.
    """
    num_samples, num_maps, height, width = maps.shape
    num_anchors = num_maps // size
    split = maps.view(num_samples, num_anchors, size, height, width)
    last = split.permute(0, 3, 4, 1, 2)
    return last.reshape(num_samples, height * width * num_anchors, size)


def _run(blocks: Sequence[nn.Module], features: Tensor, position: int) -> Tensor:
    """Remaining blocks; the features of a block are activated first."""
    if position:
        features = features.relu()
    for block in blocks[position:]:
        features = block(features).relu()
    return features
