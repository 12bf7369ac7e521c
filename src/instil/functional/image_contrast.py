"""Contrastive losses that keep generated images different from each other and from earlier ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import to_float32
from instil.functional.feature_maps import require_dims, require_same_shape


def bank_contrastive_loss(
    local: Tensor,
    whole: Tensor,
    num_images: int,
    temperature: float = 0.1,
    is_counted: Tensor | None = None,
) -> Tensor:
    """Contrastive loss of the images of a batch and of a memory (Fang et al. 2021, authors' code).

    The positive of an image's local view is its own global view; the negatives are the global
    views of all other images. Gradients reach ``local`` only.

    Args:
        local: local views (M, D), unit rows. The first ``num_images`` rows are the images of the
            batch, the others those of the memory.
        whole: global views (M, D), unit rows, in the same order.
        num_images: number of images in the batch.
        temperature: softmax temperature, > 0.
        is_counted: rows that count (M,), bool. None: all.

    Returns:
        Scalar: the mean cross-entropy over the batch plus the mean over the memory.

    Example:
        >>> import torch
        >>> views = torch.eye(3)
        >>> bank_contrastive_loss(views, views, 2, temperature=1.0)
        tensor(1.1029)
    """
    require_dims(local, 2, "local")
    if is_counted is None:
        is_counted = torch.ones(len(local), dtype=torch.bool, device=local.device)
    similarity = to_float32(local) @ to_float32(whole).detach().T / temperature
    rows = -similarity.masked_fill(~is_counted, -torch.inf).log_softmax(1).diagonal()
    rows = rows.masked_fill(~is_counted, 0.0)
    batch_size = is_counted[:num_images].sum().clamp_min(1)
    memory_size = is_counted[num_images:].sum().clamp_min(1)
    return rows[:num_images].sum() / batch_size + rows[num_images:].sum() / memory_size


def view_contrastive_loss(
    first: Tensor, second: Tensor, temperature: float = 0.1, base_temperature: float = 0.07
) -> Tensor:
    """Contrastive loss of each view against all other views of the batch.

    The positive of a view is the other view of the same image; the negatives are the remaining
    2 N - 2 views. The loss is multiplied by ``temperature / base_temperature``, as in the authors'
    code.

    Args:
        first: first views (N, D), unit rows.
        second: second views (N, D), unit rows, in the same order of images.
        temperature: softmax temperature, > 0.
        base_temperature: divisor of the scale, > 0.

    Returns:
        One value per view (2 N,): the first views, then the second ones.

    Example:
        >>> import torch
        >>> views = torch.eye(2)
        >>> view_contrastive_loss(views, views, temperature=1.0, base_temperature=1.0)
        tensor([0.5514, 0.5514, 0.5514, 0.5514])
    """
    views = torch.cat(require_same_shape(first, second, "view_contrastive_loss", 2))
    num_images = len(first)
    similarity = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    positive = torch.arange(2 * num_images, device=views.device).roll(num_images)
    values = -similarity.log_softmax(1).gather(1, positive[:, None]).squeeze(1)
    return temperature / base_temperature * values


def pair_contrastive_loss(
    first: Tensor, second: Tensor, temperature: float = 0.1, base_temperature: float = 0.07
) -> Tensor:
    """Contrastive loss of each image: the mean of ``view_contrastive_loss`` over its two views.

    Args:
        first: first views (N, D), unit rows.
        second: second views (N, D), unit rows, in the same order of images.
        temperature: softmax temperature, > 0.
        base_temperature: divisor of the scale, > 0.

    Returns:
        One value per image (N,).

    Example:
        >>> import torch
        >>> views = torch.eye(2)
        >>> pair_contrastive_loss(views, views, temperature=1.0, base_temperature=1.0)
        tensor([0.5514, 0.5514])
    """
    values = view_contrastive_loss(first, second, temperature, base_temperature)
    return values.view(2, len(first)).mean(0)


def random_resized_views(image: Tensor, draws: Tensor, smallest: float) -> Tensor:
    """Crop a window of each image and resize it to the image's size. Differentiable.

    Args:
        image: (N, C, H, W).
        draws: uniform numbers (N, 3) in [0, 1): area, horizontal and vertical position.
        smallest: smallest share of the image's area; the largest is 1.

    Returns:
        Views in the shape of ``image``.
    """
    side = (smallest + (1 - smallest) * draws[:, 0]).sqrt()
    offset = (2 * draws[:, 1:] - 1) * (1 - side)[:, None]
    zero = torch.zeros_like(side)
    rows = [
        torch.stack([side, zero, offset[:, 0]], 1),
        torch.stack([zero, side, offset[:, 1]], 1),
    ]
    theta = torch.stack(rows, 1).to(image.dtype)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    views: Tensor = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return views
