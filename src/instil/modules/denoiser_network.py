"""Calls of the networks inside a denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class DenoiserNetwork(nn.Module):
    """Network that is called in the way of its library.

    Args:
        model: network ``(noisy, time)``, ``(noisy, time, label)``, or a model of diffusers with the
            parameters ``timestep`` and ``class_labels``.
        num_classes: number of classes, 0 for an unconditional network.

    Attributes:
        scalars: names of the numbers that the model reads besides the time.

    Raises:
        ValueError: if the network reads no label and there are classes.
    """

    def __init__(self, model: nn.Module, num_classes: int):
        super().__init__()
        self.model = model
        self.scalars: tuple[str, ...] = tuple(getattr(model, "scalars", ()))
        parameters = inspect.signature(model.forward).parameters
        self.is_diffusers = "timestep" in parameters
        self.label_name = "class_labels" if self.is_diffusers else "label"
        if num_classes and self.label_name not in parameters:
            raise ValueError(
                f"conditional: {type(model).__name__} reads no {self.label_name}. Expected a "
                f"network whose forward has the parameter {self.label_name}. Set conditional: false"
            )
        _check_class_embedding(model, num_classes)

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None, scalars: Mapping[str, Tensor]
    ) -> Tensor:
        """Output of the network, with the channels of ``noisy``.

        Raises:
            ValueError: for a number that the network does not read.
        """
        for name in scalars:
            if name not in self.scalars:
                raise ValueError(
                    f"{name}: the network does not read it. Expected one of "
                    f"{', '.join(self.scalars) or 'none'}. Add it to the option scalars of the "
                    "network"
                )
        arguments: dict[str, Any] = dict(scalars)
        if label is not None:
            arguments[self.label_name] = label
        result = self.model(noisy, time, **arguments)
        output: Tensor = getattr(result, "sample", result)
        # Models with a learned variance return it in further channels.
        return output[:, : noisy.shape[1]]


def _check_class_embedding(model: Any, num_classes: int) -> None:
    """Check that a model of diffusers has an embedding for no label."""
    config = getattr(model, "config", None)
    expected = getattr(config, "num_class_embeds", None)
    if not num_classes or expected is None or expected > num_classes:
        return
    raise ValueError(
        f"num_class_embeds: the network has {expected} classes. Expected {num_classes + 1}: those "
        "of the data, and one for no label"
    )
