"""Gradient norm and gradient conflict of losses before training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from instil.core import Batch, Scheme
from instil.engine import Engine

NUM_GRADIENT_BATCHES = 3
"""Batches whose gradients are compared."""

Gradient = list[Tensor]
"""One tensor per parameter of the student."""


@dataclass(frozen=True)
class GradientSignals:
    """Gradient of a loss in the untrained student, compared with that of the label losses.

    Attributes:
        norm_ratio: norm of the gradient as a multiple of that of the label losses.
        cosine: cosine of both gradients; below 0 they conflict.
        num_batches: number of batches of the mean values.
    """

    norm_ratio: float
    cosine: float
    num_batches: int


def compare_gradients(
    scheme: Scheme, engine: Engine, batches: Sequence[Batch], label_losses: Collection[str]
) -> tuple[GradientSignals | None, dict[str, GradientSignals]]:
    """Compare the gradients of all losses in the student with that of its label losses.

    Nothing is trained. A batch without labels is left out.

    Args:
        scheme: prepared scheme, in train mode.
        engine: engine on which ``setup`` was called with the scheme.
        batches: training batches, with their clock.
        label_losses: names of the losses that compare the student with labels only.

    Returns:
        Signals of the sum of the other losses, and of each of them. None and an empty dictionary
        if the scheme lacks one of the two kinds of losses.
    """
    parameters = [one for one in scheme.student.parameters() if one.requires_grad]
    values: dict[str, list[tuple[float, float]]] = {}
    totals: list[tuple[float, float]] = []
    for batch in batches:
        gradients = _loss_gradients(scheme, engine, batch, parameters)
        labels = _sum([one for name, one in gradients.items() if name in label_losses])
        others = {name: one for name, one in gradients.items() if name not in label_losses}
        if not others or not _norm(labels):
            continue
        totals.append(_compared(_sum(list(others.values())), labels))
        for name, gradient in others.items():
            values.setdefault(name, []).append(_compared(gradient, labels))
    if not totals:
        return None, {}
    return _mean(totals), {name: _mean(pairs) for name, pairs in values.items()}


def _loss_gradients(
    scheme: Scheme, engine: Engine, batch: Batch, parameters: Sequence[nn.Parameter]
) -> dict[str, Gradient]:
    """Return the gradient in the student of each loss of a step that has one."""
    gradients: dict[str, Gradient] = {}
    updates = scheme.step(scheme.before_step(batch))
    while True:
        # Autocast covers the forward pass of an update only, not the gradients below.
        with engine.autocast():
            update = next(updates, None)
        if update is None:
            return gradients
        for name, loss in update.losses.items():
            if not loss.requires_grad:
                continue
            # The other losses of the update need the same graph.
            grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if any(grad is not None for grad in grads):
                own = [_or_zero(grad, one) for grad, one in zip(grads, parameters, strict=True)]
                # Several updates of a step may share the name of a loss.
                gradients[name] = _sum([gradients[name], own]) if name in gradients else own


def _or_zero(grad: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if grad is None else grad.detach()


def _sum(gradients: Sequence[Gradient]) -> Gradient:
    return [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]


def _compared(gradient: Gradient, labels: Gradient) -> tuple[float, float]:
    """Return the ratio of the norms and the cosine; 0 for a loss without a gradient."""
    norm = _norm(gradient)
    if not norm:
        return 0.0, 0.0
    pairs = zip(gradient, labels, strict=True)
    product = sum(float((one.double() * other.double()).sum()) for one, other in pairs)
    return norm / _norm(labels), product / (norm * _norm(labels))


def _norm(gradient: Gradient) -> float:
    squared = sum(float(part.double().square().sum()) for part in gradient)
    return float(squared**0.5)


def _mean(pairs: Sequence[tuple[float, float]]) -> GradientSignals:
    ratios, cosines = zip(*pairs, strict=True)
    count = len(pairs)
    return GradientSignals(sum(ratios) / count, sum(cosines) / count, count)
