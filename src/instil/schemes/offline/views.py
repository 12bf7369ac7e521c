"""Offline distillation with outputs for rotated views of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Card, Outputs, Scheme, Update, batch_size
from instil.roles import SHARED_ROLES

TURNS = (1, 2, 3)
"""Rotations of the three views of an image, in units of 90 degrees."""


class Views(Scheme):
    """A fixed teacher, with outputs for rotated views of each image (Xu et al. 2020).

    Each role has a second role ``view_<role>`` (N, 3, ...) for the images rotated by 90, 180 and
    270 degrees. Each network sees the images and their views as one batch of 4 N; BatchNorm of the
    student computes its statistics over all of them. Objectives that read no view role learn from
    the images only.

    Raises:
        ValueError: if the batch has no square ``image`` (N, C, H, H).
    """

    card = Card(
        "Knowledge distillation meets self-supervision",
        "https://arxiv.org/abs/2006.07114",
        "ECCV",
        2020,
        source="offline",
        algorithms=("contrastive",),
        tags=("changed_inputs",),
        equation=r"\mathcal{L}_{obj}\big(s(x), t(x)\big) + "
        r"\mathcal{L}_{views}\big(s(\tilde{x}), t(\tilde{x})\big), \quad "
        r"\tilde{x} = (R_{90} x, R_{180} x, R_{270} x)",
        use="For objectives on views (sskd), on square images that have an upright orientation.",
        pitfalls="Both networks see four images per sample, so a step takes four times as long and "
        "four times the memory. Rotated digits or letters may turn into other ones.",
        deviations="As in the authors' code, batch and running statistics of BatchNorm are those "
        "of images and views together. The authors first train a head of the teacher on the views. "
        "A teacher with this head returns its output as the role projection; other teachers are "
        "used without.",
    )

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        student, teacher = super().forward_both(with_views(batch), grad)
        num_samples = batch_size(batch)
        return split_views(student, num_samples), split_views(teacher, num_samples)

    def teacher_roles(self) -> set[str]:
        # The teacher computes plain roles; split_views derives those of the views from them.
        return {role.removeprefix("view_") for role in super().teacher_roles()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)


def with_views(batch: Batch) -> Batch:
    """Append all images rotated by 90, by 180 and by 270 degrees to a batch.

    Args:
        batch: batch with ``image`` (N, C, H, H).

    Returns:
        A batch of 4 N samples; tensors other than the images are repeated.

    Raises:
        ValueError: if there is no square ``image``.
    """
    image: Tensor | None = batch.get("image")
    if image is None:
        raise ValueError(
            "scheme: views are rotated images. Expected 'image' (N, C, H, H) in the batch, got "
            f"{', '.join(batch)}. Use a data set of images"
        )
    if image.ndim != 4 or image.shape[2] != image.shape[3]:
        raise ValueError(
            "scheme: views are rotated images. Expected a square 'image' (N, C, H, H), got shape "
            f"{tuple(image.shape)}. Resize the images"
        )
    num_samples = batch_size(batch)
    # Entries of the step, such as seed and progress, have no rows to repeat.
    rows = {
        key: value
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.shape[:1] == (num_samples,)
    }
    repeated = {key: torch.cat([value] * (1 + len(TURNS))) for key, value in rows.items()}
    rotated = [image.rot90(turns, (2, 3)) for turns in TURNS]
    return batch | repeated | {"image": torch.cat([image, *rotated])}


def split_views(outputs: Outputs, num_samples: int) -> Outputs:
    """Split outputs for samples and views into the roles ``<role>`` and ``view_<role>``.

    Args:
        outputs: outputs for 4 N rows; roles that all rows share are returned as they are.
        num_samples: N.
    """
    samples: Outputs = {}
    for role, value in outputs.items():
        if role in SHARED_ROLES:
            samples[role] = value
            continue
        samples[role] = _select_rows(value, num_samples, views=False)
        samples[f"view_{role}"] = _select_rows(value, num_samples, views=True)
    return samples


def _select_rows(value: Any, num_samples: int, views: bool) -> Any:
    """Rows of the samples, or those of their views (N, 3, ...), of every tensor in a role."""
    if isinstance(value, dict):
        return {
            role: part if role in SHARED_ROLES else _select_rows(part, num_samples, views)
            for role, part in value.items()
        }
    if isinstance(value, tuple):
        return tuple(_select_rows(part, num_samples, views) for part in value)
    if not views:
        return value[:num_samples]
    # The rows are ordered by turn and then by sample; outputs need the samples first.
    return value[num_samples:].unflatten(0, (len(TURNS), num_samples)).transpose(0, 1)
