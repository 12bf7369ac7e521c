"""Sample outputs of a one-stage detector and of a detection transformer, without draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from instil.core import Outputs
from instil.roles import DenseHead, QueryDecoder
from instil.roles.query_decoder import Memory

NUM_CLASSES = 3
CHANNELS = 4
NUM_BLOCKS = 4
NUM_QUERIES = 3
NUM_BINS = 3
GRIDS = (3, 2)
"""Height and width of the two levels of the pyramid."""


def dense_detection(class_logits: Tensor, side: str) -> Outputs:
    """Return features inside a head, predictions of all anchors, the head, and queries.

    The predictions are those of the head for the features of each position.

    Args:
        class_logits: drawn logits (N, C), whose type the outputs have. They differ with its first
            value, and so with the seed of the draws.
        side: ``student`` or ``teacher``.
    """
    num_samples, dtype = len(class_logits), class_logits.dtype
    phase = float(class_logits[0, 0]) + (0.0 if side == "student" else 1.0)
    head = _head(phase)
    features = {}
    blocks = {"class_features": head.class_blocks, "box_features": head.box_blocks}
    for index, (role, branch) in enumerate(blocks.items()):
        positions = [[_levels(num_samples, grid, phase + index) for grid in GRIDS]]
        for block in branch:
            inputs = positions[-1] if len(positions) == 1 else [x.relu() for x in positions[-1]]
            positions.append([block(level) for level in inputs])
        features[role] = tuple(tuple(level.to(dtype) for level in part) for part in positions)
    classes, edges = ([level.float() for level in features[role][0]] for role in blocks)
    logits, boxes = head.finish(classes, edges, 0)
    return {
        "anchor_logits": logits.to(dtype),
        "anchor_boxes": boxes.to(dtype),
        **features,
        "dense_head": head,
        **_distributions(logits, dtype, phase),
        **_queries(num_samples, dtype, phase),
    }


def _distributions(logits: Tensor, dtype: torch.dtype, phase: float) -> Outputs:
    """Distributions of the edges of all anchors, and the anchors with an object."""
    num_samples, num_anchors = logits.shape[:2]
    position = torch.arange(num_samples * num_anchors * 4 * NUM_BINS) + phase
    edges = (3 * position).sin().view(num_samples, num_anchors, 4 * NUM_BINS)
    has_object = (torch.arange(num_anchors) % 3 == 0).expand(num_samples, num_anchors)
    centres = 4.0 * torch.arange(num_anchors)[:, None]
    anchors = torch.cat([centres - 1, centres - 1, centres + 1, centres + 1], 1)
    boxes = torch.tensor([[2.0, 2, 18, 18], [30, 30, 40, 40], [0, 0, 0, 0]])
    return {
        "edge_logits": edges.to(dtype),
        "foreground": has_object.to(dtype),
        "target_boxes": boxes.expand(num_samples, -1, -1),
        "anchors": anchors.expand(num_samples, -1, -1),
    }


def _queries(num_samples: int, dtype: torch.dtype, phase: float) -> Outputs:
    """Predictions of a detection transformer, its decoder, and what the decoder reads."""
    position = torch.arange(num_samples * NUM_QUERIES * 4).view(num_samples, NUM_QUERIES, 4)
    points = 2 * (5 * position + phase).sin()
    memory = ((7 * position + phase).cos().to(dtype),)
    logits, boxes = _decode_points(memory, points.to(dtype))
    return {
        "query_logits": logits[-1],
        "query_boxes": boxes[-1],
        "query_points": points.to(dtype),
        "query_memory": memory,
        "query_decoder": QueryDecoder(4, False, _decode_points),
    }


def _decode_points(memory: Memory, points: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (1, N, Q, 4) and boxes (1, N, Q, 4) of a decoder with one layer."""
    context = memory[0].mean(1, keepdim=True)
    return 2 * (points + context).sin()[None], (0.5 + 0.4 * (points - context).cos())[None]


def _levels(num_samples: int, grid: int, phase: float) -> Tensor:
    size = num_samples * CHANNELS * grid**2
    return (3 * torch.arange(size) + phase).sin().view(num_samples, CHANNELS, grid, grid)


def _head(phase: float) -> DenseHead:
    def layer(outputs: int, start: float) -> nn.Conv2d:
        convolution = nn.Conv2d(CHANNELS, outputs, 1)
        weight = (torch.arange(outputs * CHANNELS) + start + phase).cos()
        convolution.weight = nn.Parameter(weight.view(outputs, CHANNELS, 1, 1))
        convolution.bias = nn.Parameter((torch.arange(outputs) + start).sin())
        return convolution.requires_grad_(False)

    return DenseHead(
        [layer(CHANNELS, block) for block in range(NUM_BLOCKS)],
        [layer(CHANNELS, 0.5 + block) for block in range(NUM_BLOCKS)],
        layer(NUM_CLASSES, 7.0),
        layer(4, 8.0),
        NUM_CLASSES,
        _decode,
    )


def _decode(codes: Tensor) -> Tensor:
    """Boxes around the origin; both sizes are at least 1."""
    size = 1 + codes[..., 2:].abs()
    return torch.cat([codes[..., :2] - size, codes[..., :2] + size], -1)
