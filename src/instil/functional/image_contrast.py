"""Made images that a discriminator tells from each other, and from those made before, are not all the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32


def bank_contrastive_loss(
    local: Tensor, whole: Tensor, number: int, temperature: float = 0.1, there: Tensor | None = None
) -> Tensor:
    """Each image's local view finds its own global view among all, by the inner product over the temperature (Fang et al. 2021, authors' code).

    Unit rows ``local`` and ``whole`` (M, D): first those of the ``number`` images of the batch, then of those remembered; ``there`` (M,) marks the
    rows that count. The mean cross-entropy over the former and that over the latter, summed, a scalar. Gradients reach ``local`` alone.
    """
    there = (
        torch.ones(len(local), dtype=torch.bool, device=local.device) if there is None else there
    )
    similar = to_float32(local) @ to_float32(whole).detach().T / temperature
    rows = -similar.masked_fill(~there, -torch.inf).log_softmax(1).diagonal()
    rows = rows.masked_fill(~there, 0.0)
    sizes = [part.sum().clamp_min(1) for part in (there[:number], there[number:])]
    return rows[:number].sum() / sizes[0] + rows[number:].sum() / sizes[1]


def view_contrastive_loss(
    one: Tensor, other: Tensor, temperature: float = 0.1, base_temperature: float = 0.07
) -> Tensor:
    """Contrastive loss of each view against all other views of the batch.

    The positive of a view is the other view of the same image; the negatives are the remaining
    2 N - 2 views. The loss is scaled by ``temperature / base_temperature``, as in the authors' code.

    Args:
        one: first views (N, D), unit rows.
        other: second views (N, D), unit rows, in the same order of images.
        temperature: softmax temperature, > 0.
        base_temperature: divisor of the scale, > 0.

    Returns:
        One value per view (2 N,): the first views, then the second ones.
    """
    views = torch.cat([to_float32(one), to_float32(other)])
    num_images = len(one)
    similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    positive = torch.arange(2 * num_images, device=views.device).roll(num_images)
    values = -similarity.log_softmax(1).gather(1, positive[:, None]).squeeze(1)
    return temperature / base_temperature * values


def pair_contrastive_loss(
    one: Tensor, other: Tensor, temperature: float = 0.1, base_temperature: float = 0.07
) -> Tensor:
    """Mean of :func:`view_contrast` over the two views of each image: (N, D) give (N,)."""
    return (
        view_contrastive_loss(one, other, temperature, base_temperature).view(2, len(one)).mean(0)
    )


def random_resized_views(image: Tensor, draws: Tensor, smallest: float) -> Tensor:
    """Of each image (N, C, H, W) a window, resized to the whole: ``draws`` (N, 3) in [0, 1) say how much of its area, from ``smallest`` to 1, and
    where across and down. Differentiable."""
    side = (smallest + (1 - smallest) * draws[:, 0]).sqrt()
    place = (2 * draws[:, 1:] - 1) * (1 - side)[:, None]
    zero = torch.zeros_like(side)
    window = torch.stack(
        [torch.stack([side, zero, place[:, 0]], 1), torch.stack([zero, side, place[:, 1]], 1)], 1
    ).to(image.dtype)
    seen: Tensor = F.grid_sample(
        image,
        F.affine_grid(window, list(image.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )
    return seen
