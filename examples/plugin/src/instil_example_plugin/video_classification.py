"""Classification of videos."""

from __future__ import annotations

from typing import Any

from torch import nn

from instil import Card
from instil.core import Batch, Outputs
from instil.tasks.bases.classes import ClassTask


def call(model: nn.Module, batch: Batch, roles: Any = None) -> Outputs:
    """Outputs of a video network: ``logits`` (N, C)."""
    return {"logits": model(batch["video"])}


class VideoClassification(ClassTask):
    """One class for each video (N, T, channels, H, W)."""

    card = Card("Video classification", tasks=("video_classification",))
    title = "video classification"
    names = ("video", "label")
    inputs = ("video",)
    call = staticmethod(call)
