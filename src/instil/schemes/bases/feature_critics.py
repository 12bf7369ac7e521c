"""Critics of generated images, which read the features of another network."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Outputs, to_float32


def feature_levels(outputs: Outputs, method: str, network: str = "teacher") -> tuple[Tensor, ...]:
    """Feature levels that a critic reads, in float32.

    Args:
        outputs: outputs of the network.
        method: name of the method, for the message.
        network: recipe path of the network, for the message.

    Raises:
        ValueError: for outputs without ``features``.
    """
    if "features" not in outputs:
        raise ValueError(
            f"{network}.taps: the critic of {method} reads 'features'. Expected them in the "
            f"outputs of the network, got {', '.join(outputs)}. Name modules in taps"
        )
    value = outputs["features"]
    levels = value if isinstance(value, tuple) else (value,)
    return tuple(to_float32(level) for level in levels)


def level_score(head: nn.Module, level: Tensor) -> Tensor:
    """Score of each image (N,) by the head of one level, the mean over positions."""
    score: Tensor = head(level)
    return score.flatten(1).mean(1)
