"""Both nets are also asked about turned views of each image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from instil.core import SHARED_ROLES, Batch, Card, Outputs, Scheme, Update, batch_size

TURNS = (1, 2, 3)
"""Of 90 degrees: the V = 3 views of an image."""


class Views(Scheme):
    """A fixed teacher, and beside every role ``view_<role>`` (N, 3, ...): of each image turned by 90, 180 and 270 degrees (Xu et al. 2020).

    The views are made once; each net sees them with the images as one batch of 4 N, over all of which BatchNorm of the student takes its
    statistics. Objectives that read no view learn from the images alone.

    Raises ValueError where the batch has no square ``image`` (N, C, H, H).
    """

    card = Card(
        "Knowledge distillation meets self-supervision",
        "https://arxiv.org/abs/2006.07114",
        "ECCV",
        2020,
        source="offline",
        algorithms=("contrastive",),
        equation=r"\mathcal{L}_{obj}\big(s(x), t(x)\big) + \mathcal{L}_{views}\big(s(\tilde{x}), t(\tilde{x})\big), \quad "
        r"\tilde{x} = (R_{90} x, R_{180} x, R_{270} x)",
        use="What objectives on views need (sskd); square images that have an up.",
        pitfalls="Both nets see four times as many images, so that a step takes four times as long and as much memory. Turned digits or letters may "
        "become others.",
        deviations="As in the authors' code, BatchNorm's batch and running statistics are of the images and their views together. The authors first "
        "train a head of the teacher on the views; a teacher that has it gives it as the role projection, others are taken without.",
    )

    def forward_both(self, batch: Batch, grad: bool = False) -> tuple[Outputs, Outputs]:
        student, teacher = super().forward_both(with_views(batch), grad)
        return parted(student, batch_size(batch)), parted(teacher, batch_size(batch))

    def build(self, batch: Batch) -> None:
        super().build(batch)
        if self.teacher is not None:
            read = {role.removeprefix("view_") for role in self.objectives.reads("teacher")}
            self.teacher.select_roles(read - {"input"}, batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)


def with_views(batch: Batch) -> Batch:
    """The batch four times as long: its images, then all of them turned by 90, by 180 and by 270 degrees; the rest of it is repeated."""
    image: Tensor | None = batch.get("image")
    if image is None or image.ndim != 4 or image.shape[2] != image.shape[3]:
        found = (
            f"image has the shape {tuple(image.shape)}"
            if image is not None
            else f"the batch has {', '.join(batch)}"
        )
        raise ValueError(
            f"views are turned images, so 'image' must be square, (N, C, H, H); {found}"
        )
    number = batch_size(batch)
    rows = {
        key: value
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.shape[:1] == (number,)
    }
    longer = {key: torch.cat([value] * (1 + len(TURNS))) for key, value in rows.items()}
    return (
        batch
        | longer
        | {"image": torch.cat([image, *(image.rot90(turns, (2, 3)) for turns in TURNS)])}
    )


def parted(outputs: Outputs, number: int) -> Outputs:
    """The first ``number`` rows under their role, the views that follow as ``view_<role>``; roles that all rows share as they are."""
    samples: Outputs = {}
    for role, value in outputs.items():
        if role in SHARED_ROLES:
            samples[role] = value
        else:
            samples |= {
                role: each(value, number, views=False),
                f"view_{role}": each(value, number, views=True),
            }
    return samples


def each(value: Any, number: int, views: bool) -> Any:
    """The rows of the samples, or (N, 3, ...) of their ``views``, of every tensor in a role."""
    if isinstance(value, dict):
        return {
            role: part if role in SHARED_ROLES else each(part, number, views)
            for role, part in value.items()
        }
    if isinstance(value, tuple):
        return tuple(each(part, number, views) for part in value)
    return (
        value[number:].unflatten(0, (len(TURNS), number)).transpose(0, 1)
        if views
        else value[:number]
    )
