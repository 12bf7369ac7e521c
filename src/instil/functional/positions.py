"""Positions of keypoints as distributions over the columns and rows of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import Batch, to_float32
from instil.functional.pixel_values import valid_pixels
from instil.functional.real_labels import unlabelled_mask

WINDOW = 2
"""Bins on each side of the most likely one whose mean is the position."""


def marginals(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the column and of the row, from logits of every cell.

    The softmax of the results are the marginals of the softmax over all cells.

    Args:
        heatmaps: (N, K, H, W).

    Returns:
        Logits (N, K, W) and (N, K, H).
    """
    return heatmaps.logsumexp(-2), heatmaps.logsumexp(-1)


def position(logits: Tensor, size: float) -> Tensor:
    """Position in pixels: the mean of the distribution around its largest bin.

    Args:
        logits: (..., bins); bins divide the side into equal parts.
        size: side of the image in pixels.

    Returns:
        (...). The centre of the first bin is at half its width.

    Example:
        >>> round(position(torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]), 10.0).item(), 3)
        5.0
    """
    logits = to_float32(logits)
    num_bins = logits.shape[-1]
    index = torch.arange(num_bins, device=logits.device)
    peak = logits.argmax(-1, keepdim=True)
    is_near = (index - peak).abs() <= WINDOW
    probability = logits.masked_fill(~is_near, -torch.inf).softmax(-1)
    mean = (probability * (index + 0.5)).sum(-1)
    return mean * size / num_bins


def gaussian_bins(target: Tensor, num_bins: int, size: float | Tensor, sigma: float) -> Tensor:
    """Distribution over the bins with the shape of a normal density around a position.

    Args:
        target: positions (...) in pixels.
        num_bins: number of bins.
        size: side of the image in pixels, or a tensor that broadcasts to the positions.
        sigma: standard deviation in pixels, > 0.

    Returns:
        Probabilities (..., bins).
    """
    share = (torch.arange(num_bins, device=target.device) + 0.5) / num_bins
    centres = share * size if not isinstance(size, Tensor) else share * size[..., None]
    exponent = -((centres - target[..., None]) / sigma).square() / 2
    return exponent.softmax(-1)


def confidence(columns: Tensor, rows: Tensor) -> Tensor:
    """Confidence of positions: the largest probability of the column or the row, the smaller one.

    Args:
        columns: logits (..., W).
        rows: logits (..., H).

    Returns:
        (...), in (0, 1].

    Example:
        >>> confidence(torch.zeros(4), torch.tensor([9.0, 0.0]))
        tensor(0.2500)
    """
    values = [to_float32(logits).softmax(-1).amax(-1) for logits in (columns, rows)]
    return torch.minimum(*values)


def known_keypoints(batch: Batch) -> Tensor:
    """Mask (N, K) of the keypoints that count and whose column and row are known.

    Args:
        batch: ``label`` (N, K, 2), and ``valid`` (N, K) or (N,).
    """
    is_known = ~unlabelled_mask(batch["label"]).any(-1)
    return is_known & valid_pixels(batch, is_known)
