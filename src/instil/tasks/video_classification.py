"""Classification of videos: one class, several classes or a yes-or-no decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from instil.core import Batch, Card, Outputs
from instil.data.video_augmentation import VideoAugmentation
from instil.data.video_checks import check_video
from instil.tasks.bases.classes import ClassTask
from instil.tasks.bases.main_output import outputs_by_role
from instil.tasks.classification import pixels_in_unit_range

ROLES = ("logits", "features", "embedding", "loss")
"""Outputs by name that are used."""


def call(
    model: nn.Module,
    batch: Batch,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Outputs:
    """Compute the outputs of a video classifier.

    Args:
        model: a model that maps videos (N, C, T, H, W) to logits, as a tensor or by name.
        batch: ``video`` (N, C, T, H, W) in [0, 1]. With ``reads: {video: KEY}`` it may also hold
            images (N, C, H, W) for a model of images.
        mean: mean of each channel, subtracted. Grey videos become colour videos for three values.
        std: standard deviation of each channel, divided by.

    Returns:
        ``logits`` (N, C). A model that returns ``features``, ``embedding`` or ``loss`` by name has
        these roles too.
    """
    video = batch["video"]
    if mean is not None:
        video = video - _per_channel(video, mean)
    if std is not None:
        video = video / _per_channel(video, std)
    result = model(video)
    return outputs_by_role(result, ROLES)


def _per_channel(video: Tensor, values: Sequence[float]) -> Tensor:
    """Values of the channels, which broadcast with a video (N, C, T, H, W) or an image."""
    return video.new_tensor(values).view(-1, *[1] * (video.ndim - 2))


class VideoClassification(ClassTask):
    """Classification of videos.

    Labels are int64 (N,) for ``single``, float (N, C) for ``multi``, float (N, 1) for ``binary``;
    -100 for no label.

    Args:
        kind: kind of the labels: ``single``, ``multi`` or ``binary``.
    """

    card = Card("Classification of videos", tasks=("video_classification",))
    title = "classification of videos"
    names = ("video", "label")
    inputs = ("video",)
    axes: ClassVar = {"frames": ("video", 2)}
    augmentation = VideoAugmentation
    eval_batch_size = 64
    call = staticmethod(call)

    def check_data(self, batch: Batch) -> None:
        super().check_data(batch)
        # A student of images reads an image under this key.
        if batch["video"].ndim != 4 or "image" not in batch:
            check_video(batch["video"])

    def to_batch(self, inputs: Tensor | Mapping[str, Tensor], shape: Sequence[int]) -> Batch:
        """Return videos (N, C, T, H, W), uint8 or float in [0, 1], in the size of training."""
        batch = super().to_batch(inputs, shape)
        video = batch["video"]
        if tuple(video.shape[1:]) != tuple(shape):
            raise ValueError(
                f"video: wrong shape. Expected (N, {', '.join(map(str, shape))}) as in training, "
                f"got {tuple(video.shape)}. Sample the frames again"
            )
        return batch | {"video": pixels_in_unit_range(video, "videos")}
