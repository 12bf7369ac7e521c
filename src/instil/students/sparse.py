"""N:M sparsity: at most N of M neighbouring weights are not zero.

Zhou et al., ICLR 2021 (SR-STE); 2:4 is the pattern of sparse tensor cores.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Doc

from instil.students.layers import output_head

NonNegative = Annotated[float, Ge(0)]


class _StraightThrough(torch.autograd.Function):
    """Weights times a mask; the gradient is that of the identity, plus decay of masked weights."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        weight, mask = ctx.saved_tensors
        gradient: Tensor = gradients[0]
        if ctx.decay:
            gradient = gradient + ctx.decay * (1 - mask) * weight
        return gradient, None, None


def n_m_mask(weight: Tensor, n: int, m: int) -> Tensor:
    """Return the mask of the ``n`` largest of each ``m`` neighbouring inputs.

    Args:
        weight: (O, I, ...), where I is a multiple of ``m``. Neighbours differ in the input only, as
            in the memory layout of sparse tensor cores.
        n: number of weights that stay.
        m: number of neighbours.

    Returns:
        Ones and zeros, with the shape and type of the weight.

    Example:
        >>> import torch
        >>> n_m_mask(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), 2, 4)
        tensor([[0., 1., 1., 0.]])
    """
    moved = weight.detach().movedim(1, -1)
    groups = moved.abs().unflatten(-1, (-1, m))  # type: ignore[no-untyped-call]
    mask = torch.zeros_like(groups).scatter_(-1, groups.topk(n, -1).indices, 1.0)
    return mask.view_as(moved).movedim(-1, 1)


class Sparse(nn.Module):
    """Parametrisation that keeps the largest weights, chosen again in every forward pass.

    Args:
        n: number of weights that stay.
        m: number of neighbours.
        decay: decay of the other weights.
    """

    def __init__(self, n: int, m: int, decay: float):
        super().__init__()
        self.n = n
        self.m = m
        self.decay = decay

    def forward(self, weight: Tensor) -> Tensor:
        """Return weights (O, I, ...) with zeros."""
        mask = n_m_mask(weight, self.n, self.m)
        masked: Tensor = _StraightThrough.apply(weight, mask, self.decay)
        return masked


def sparse(
    model: nn.Module,
    n: Annotated[Annotated[int, Ge(1)], Doc("weights that stay of each m neighbouring inputs")] = 2,
    m: Annotated[Annotated[int, Ge(2)], Doc("number of neighbouring inputs")] = 4,
    decay: Annotated[
        NonNegative,
        Doc(
            "decay of the weights that are zero now, added to their gradient in every backward "
            "pass: 2e-4 in SR-STE; 0: plain straight-through estimator, whose result does not "
            "depend on the number of micro-batches"
        ),
    ] = 0.0,
) -> nn.Module:
    """Make the weights of linear layers and convolutions N:M sparse, in place.

    The largest weights stay. They are chosen again in every step, and the other ones keep learning,
    so a weight may return. Embeddings, a head over tokens and layers whose inputs are not a
    multiple of ``m``, such as the first convolution, stay dense.

    Raises:
        ValueError: if ``n`` is not below ``m``, or no layer has a multiple of ``m`` inputs.
    """
    if n >= m:
        raise ValueError(f"n: expected a number below m = {m}, got {n}")
    head = output_head(model)
    layers: list[Any] = [
        part
        for part in model.modules()
        if isinstance(part, (nn.Linear, nn.Conv2d))
        and part is not head
        and part.weight.shape[1] % m == 0
    ]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no linear layer or convolution whose inputs are a "
            f"multiple of m = {m}"
        )
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Sparse(n, m, decay))
    return model
