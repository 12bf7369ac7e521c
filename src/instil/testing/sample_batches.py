"""Entries of sample batches for each task, in addition to ``label`` and ``index``."""

from __future__ import annotations

import torch

from instil.core import UNLABELLED, Batch
from instil.testing.sample_images import NUM_KEYPOINTS
from instil.testing.sample_sides import (
    IMAGE_SIZE,
    NUM_CLASSES,
    NUM_FRAMES,
    NUM_POINTS,
    NUM_SYMBOLS,
    NUM_TOKENS,
)


def no_entries(num_samples: int) -> Batch:
    """No further entries."""
    return {}


def pixels_of_points(num_samples: int) -> Batch:
    """Points (N, P, 3), and their positions in an image (N, P, 2), some outside of it."""
    num_points = NUM_POINTS["student"]
    index = torch.arange(num_samples * num_points * 3).view(num_samples, num_points, 3)
    points = (3 * index).sin()
    return {"points": points, "pixels": 1.2 * points[..., :2]}


def padding(num_samples: int) -> Batch:
    """Attention masks of texts with three to all tokens."""
    lengths = NUM_TOKENS - torch.arange(num_samples) % (NUM_TOKENS - 2)
    return {"attention_mask": (torch.arange(NUM_TOKENS) < lengths[:, None]).long()}


def tokens(num_samples: int) -> Batch:
    """Token ids and labels; every third row has no label, the others lack some labels."""
    row, position = torch.meshgrid(
        torch.arange(num_samples), torch.arange(NUM_TOKENS), indexing="ij"
    )
    label = (row + position * position) % NUM_CLASSES
    is_unlabelled = (row % 3 == 0) | ((row + position) % 5 == 0)
    return {
        "input_ids": (row * 3 + position) % NUM_CLASSES,
        "label": label.masked_fill(is_unlabelled, UNLABELLED),
    }


def pairs(num_samples: int) -> Batch:
    """Labels of targets with padding, and masks of the inputs; every third sample has no label."""
    row, position = torch.meshgrid(
        torch.arange(num_samples), torch.arange(NUM_TOKENS), indexing="ij"
    )
    label = (row + position * position) % NUM_CLASSES
    is_unlabelled = (row % 3 == 0) | (position > 2 + row % 4)
    keys = torch.arange(NUM_TOKENS + 2)
    return {
        "label": label.masked_fill(is_unlabelled, UNLABELLED),
        "encoder_attention_mask": (keys < 4 + row[:, :1] % 5).long(),
    }


def segmentation_labels(num_samples: int) -> Batch:
    """Labels of pixels; every third image has no label, the others lack some labels."""
    image, row, column = torch.meshgrid(
        torch.arange(num_samples),
        torch.arange(IMAGE_SIZE),
        torch.arange(IMAGE_SIZE),
        indexing="ij",
    )
    label = (image + (row + column) // 5) % NUM_CLASSES
    is_unlabelled = (image % 3 == 0) | ((image + row * column) % 5 == 0)
    return {"label": label.masked_fill(is_unlabelled, UNLABELLED)}


def depths(num_samples: int) -> Batch:
    """Depths of pixels; every third image has none, the others lack some."""
    label = segmentation_labels(num_samples)["label"]
    return {"label": torch.where(label == UNLABELLED, label, 1 + label).float()}


def keypoints(num_samples: int) -> Batch:
    """Positions of two keypoints; every third image has none, every fifth only the first."""
    image, keypoint, axis = torch.meshgrid(
        torch.arange(num_samples), torch.arange(NUM_KEYPOINTS), torch.arange(2), indexing="ij"
    )
    label = (1 + (image + 2 * keypoint + 3 * axis) % 6).float()
    is_unknown = (image % 3 == 0) | ((image % 5 == 0) & (keypoint > 0))
    sizes = torch.full((num_samples, 2), float(IMAGE_SIZE))
    return {"label": label.masked_fill(is_unknown, UNLABELLED), "image_size": sizes}


def graph(num_samples: int) -> Batch:
    """Edges ``edge_index`` (2, E) within groups of nodes.

    The first node has no neighbours. The next six form a group, and the rest another one, with
    most edges and self-loops.
    """
    index = torch.arange(num_samples)
    group = torch.bucketize(index, torch.tensor([1, 7]), right=True)
    is_inside = (group[:, None] == group) & (group > 0)
    is_edge = (2 * index[:, None] + index) % 5 != 1
    return {"edge_index": (is_inside & is_edge).nonzero().T}


def boxes(num_samples: int) -> Batch:
    """Edges of boxes, between the bins and on them; every fourth sample has no box."""
    box = 2 + 2 * torch.arange(4 * num_samples).sin().view(num_samples, 4)
    box[1] = box[1].round()
    is_unlabelled = torch.arange(num_samples)[:, None] % 4 == 3
    return {"box": box.masked_fill(is_unlabelled, UNLABELLED)}


def real_labels(num_samples: int) -> Batch:
    """Real labels; every third sample has none."""
    index = torch.arange(num_samples)
    return {"label": index.sin().where(index % 3 > 0, UNLABELLED)}


def transcripts(num_samples: int) -> Batch:
    """Texts of one or two symbols other than the blank; every third recording has none."""
    row = torch.arange(num_samples)
    label = torch.full((num_samples, NUM_FRAMES), UNLABELLED)
    for position in range(NUM_SYMBOLS):
        has_symbol = (row % 3 > 0) & (row % (position + 1) == 0)
        label[:, position] = torch.where(has_symbol, 1 + (row + position) % 5, UNLABELLED)
    return {"label": label}


def grades(num_samples: int) -> Batch:
    """Grades of candidates; every third query has none."""
    query, candidate = torch.meshgrid(
        torch.arange(num_samples), torch.arange(NUM_CLASSES), indexing="ij"
    )
    label = ((query + 2 * candidate) % NUM_CLASSES - 4).clamp_min(0).float()
    return {"label": label.masked_fill(query % 3 == 0, UNLABELLED)}


def links(num_samples: int) -> Batch:
    """Labels of pairs: edges, other pairs and unknown ones; every third anchor has no label."""
    anchor, candidate = torch.meshgrid(
        torch.arange(num_samples), torch.arange(NUM_CLASSES), indexing="ij"
    )
    label = (candidate == anchor % 3).float()
    is_unknown = (anchor % 3 == 0) | ((anchor + candidate) % 4 == 3)
    return {"label": label.masked_fill(is_unknown, UNLABELLED)}


def object_labels(num_samples: int) -> Batch:
    """Masks of objects; every third image has no label, the others lack some labels."""
    label = segmentation_labels(num_samples)["label"]
    return {"label": torch.where(label == UNLABELLED, label, label % 2)}
