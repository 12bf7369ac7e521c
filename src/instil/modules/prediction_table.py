"""Table of the smoothed predictions for each training sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def smoothed_predictions(
    average: Tensor, probabilities: Tensor, smoothing: float | Tensor
) -> Tensor:
    """Update the moving averages of the predictions for some samples (Ren et al. 2022).

    Args:
        average: current averages (N, C). A row of zeros has no prediction yet.
        probabilities: predictions of this step (N, C), such as the softmax of the logits.
        smoothing: weight of the new prediction, in (0, 1].

    Returns:
        New averages (N, C): ``(1 - smoothing) * average + smoothing * probabilities``, or the new
        prediction in rows without an earlier one.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> average = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
        >>> smoothed_predictions(average, torch.tensor([[1.0, 0.0], [0.2, 0.8]]), 0.1)
        tensor([[0.5500, 0.4500],
                [0.2000, 0.8000]])
    """
    if average.shape != probabilities.shape:
        raise ValueError(
            "probabilities: the shape differs from the averages. Expected "
            f"{tuple(average.shape)}, got {tuple(probabilities.shape)}"
        )
    has_prediction = average.sum(-1, keepdim=True) > 0
    return torch.where(has_prediction, average.lerp(probabilities, smoothing), probabilities)


class PredictionTable(nn.Module):
    """Moving average of the predictions for each training sample.

    Args:
        num_samples: number of rows; the ``index`` of every sample is below it.
        num_classes: number of columns.
        device: device of the table.
    """

    average: Tensor

    def __init__(self, num_samples: int, num_classes: int, device: torch.device | None = None):
        super().__init__()
        self.register_buffer("average", torch.zeros(num_samples, num_classes, device=device))

    def forward(self, index: Tensor) -> Tensor:
        """Return the averages (N, C) of the samples ``index`` (N,); zeros where there is none."""
        return self.average[index]

    @torch.no_grad()
    def update(
        self, index: Tensor, probabilities: Tensor, counted: Tensor, smoothing: float
    ) -> None:
        """Record the predictions of one step.

        Args:
            index: samples (N,); those that count at most once.
            probabilities: their predictions (N, C).
            counted: False (N,) for entries that are left out.
            smoothing: weight of the new predictions.
        """
        # Selected first: a process without data repeats samples of its last batch, uncounted.
        index, probabilities = index[counted], probabilities[counted]
        self.average[index] = smoothed_predictions(self.average[index], probabilities, smoothing)
