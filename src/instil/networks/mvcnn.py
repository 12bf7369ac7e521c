"""A multi-view CNN (Su et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from instil.cards import PositiveInt
from instil.networks.cnn import conv_stages


class MVCNN(nn.Module):
    """Convolutions of each view, the maximum or mean over the views, and a linear head.

    Args:
        classes: number of classes.
        channels: number of channels of a view.
        width: width of the first stage.
        depth: number of stages.
        pool: ``max`` or ``mean`` over the views.

    Attributes:
        reads_views: the task passes all views in one tensor.
    """

    reads_views: ClassVar[bool] = True

    def __init__(self, classes: int, channels: int, width: int, depth: int, pool: str):
        super().__init__()
        # Not `stages`: their maps belong to single views, and are no feature levels of a sample.
        self.encoder = nn.Sequential(*conv_stages(channels, width, depth, 1, "batch"))
        self.pool = pool
        self.head = nn.Linear(width * 2 ** (depth - 1), classes)

    def forward(self, views: Tensor) -> dict[str, Tensor]:
        """Compute the outputs for views (N, V, C, H, W).

        Returns:
            ``logits`` (N, K), and for each view ``view_logits`` (N, V, K) and ``view_embedding``
            (N, V, D).
        """
        maps = self.encoder(views.flatten(0, 1))
        embedding = maps.mean((2, 3)).unflatten(0, (-1, views.shape[1]))
        # The pooled views come last: a tap reads the last call of the head.
        view_logits = self.head(embedding)
        pooled = embedding.amax(1) if self.pool == "max" else embedding.mean(1)
        return {
            "logits": self.head(pooled),
            "view_logits": view_logits,
            "view_embedding": embedding,
        }


def mvcnn(
    classes: PositiveInt,
    channels: PositiveInt = 1,
    width: PositiveInt = 32,
    depth: PositiveInt = 3,
    pool: str = "max",
) -> nn.Module:
    """Build a multi-view CNN for any number of views: 94,186 parameters at the defaults.

    Args:
        classes: number of classes.
        channels: number of channels of a view.
        width: width of the first stage.
        depth: number of stages; each after the first halves the resolution.
        pool: ``max`` or ``mean`` over the views.

    Raises:
        ValueError: if ``pool`` is unknown.
    """
    if pool not in ("max", "mean"):
        raise ValueError(f"mvcnn.pool: unknown value. Expected max or mean, got '{pool}'")
    return MVCNN(classes, channels, width, depth, pool)
