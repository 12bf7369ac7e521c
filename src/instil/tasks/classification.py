"""Images to classes: one, several or yes-or-no."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.tasks.bases.classes import ClassTask


def call(
    model: nn.Module,
    batch: Batch,
    size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """``logits`` for ``image`` (N, C, H, W) in [0, 1], resized (bilinear, antialiased) and normalised as this model expects it.

    Grey images become colour where ``mean`` has three values. Of a transformers model ``hidden_states`` and, where its config asks for them,
    ``attentions`` come too.
    """
    answer = model(preprocess(batch["image"], size, mean, std), **forward_kwargs(model))
    if isinstance(answer, Mapping):
        return {
            role: answer[role]
            for role in ("logits", "hidden_states", "attentions")
            if answer.get(role) is not None
        }
    return {"logits": answer[0] if isinstance(answer, (tuple, list)) else answer}


def preprocess(
    image: Tensor,
    size: int | tuple[int, int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Tensor:
    """The image at (``size``, ``size``) or ``size`` = (H, W), less ``mean`` and over ``std``, each one number a channel."""
    if size is not None:
        wanted = (size, size) if isinstance(size, int) else tuple(size)
        if image.shape[-2:] != wanted:
            image = F.interpolate(image, wanted, mode="bilinear", antialias=True)
    if mean is not None:
        image = image - image.new_tensor(mean)[:, None, None]
    if std is not None:
        image = image / image.new_tensor(std)[:, None, None]
    return image


def check_images(images: Tensor, channels: int) -> Tensor:
    """Images (N, C, H, W) as float32 in [0, 1]; ValueError for another shape or range."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(
            f"images must have the shape (N, {channels}, H, W), not {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if not images.is_floating_point() or (
        images.numel() and not (images.min() >= 0 and images.max() <= 1)
    ):
        raise ValueError(
            f"images must be uint8, or floating point in [0, 1], not {str(images.dtype).removeprefix('torch.')} outside of it"
        )
    return images.float()


def forward_kwargs(model: nn.Module) -> dict[str, bool]:
    """What a transformers model is asked besides its logits."""
    return (
        {"output_hidden_states": True}
        if hasattr(getattr(model, "config", None), "model_type")
        else {}
    )


class Classification(ClassTask):
    """What the loop and the command line ask of the task; ``kind`` is that of the labels: ``single``, ``multi`` or ``binary``.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, (N, 1) for ``binary``; -100 where there is none.
    """

    card = Card("Image classification")
    title = "classification"
    names = ("image", "label")
    inputs = ("image",)
    call = staticmethod(call)

    def to_batch(self, given: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Images (N, C, H, W): uint8, or float in [0, 1]; resized to those that the student was trained on."""
        batch = super().to_batch(given, shape)
        return batch | {
            "image": preprocess(
                check_images(batch["image"], shape[0]), (shape[1], shape[2]), None, None
            )
        }
