"""Simulated 4-bit floating-point formats in blocks: NVFP4 and MXFP4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_E2M1 = 6.0
LARGEST_E4M3 = 448.0
NVFP4_BLOCK = 16
MXFP4_BLOCK = 32
E2M1_EXPONENT = 2
"""Exponent of the largest E2M1 number."""


def round_e2m1(values: Tensor) -> Tensor:
    """Round to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4 and 6 with sign; ties to an even mantissa.

    Larger values become 6.

    Args:
        values: any shape.

    Example:
        >>> import torch
        >>> round_e2m1(torch.tensor([0.25, 0.8, -2.5, 5.1, 9.0]))
        tensor([ 0.,  1., -2.,  6.,  6.])
    """
    size = values.abs().clamp(max=LARGEST_E2M1)
    # The distance of neighbours doubles at 2 and at 4.
    step = 0.5 + 0.5 * (size >= 2) + 1.0 * (size >= 4)
    return (size / step).round() * step * values.sign()


def nvfp4(weight: Tensor) -> Tensor:
    """Round to NVFP4: E2M1 values, an E4M3 scale per 16 inputs and a float32 scale per tensor.

    The scale of the tensor maps its largest value to the largest product of both formats, 448 * 6.

    Args:
        weight: (O, ...); blocks lie within an output. A last shorter block has its own scale.
    """
    blocks = _blocks(weight.float(), NVFP4_BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    tensor_scale = largest.amax() / (LARGEST_E2M1 * LARGEST_E4M3)
    # A tensor of zeros has a scale above 0, which avoids 0 / 0.
    tensor_scale = tensor_scale.clamp_min(torch.finfo(torch.float32).tiny)
    ratio = (largest / LARGEST_E2M1 / tensor_scale).clamp(max=LARGEST_E4M3)
    scale = ratio.to(torch.float8_e4m3fn).float() * tensor_scale
    # The scale of a block of very small values may round to 0; its values become 0.
    rounded = round_e2m1(torch.where(scale > 0, blocks / scale, 0.0)) * scale
    return _unblock(rounded, weight)


def mxfp4(weight: Tensor) -> Tensor:
    """Round to MXFP4: E2M1 values and a scale per 32 inputs that is a power of two (E8M0).

    The exponent of the scale is that of the largest value minus 2, the largest exponent of E2M1
    (OCP Microscaling Formats specification 1.0, section 6.3).

    Args:
        weight: (O, ...); blocks lie within an output. A last shorter block has its own scale.
    """
    blocks = _blocks(weight.float(), MXFP4_BLOCK)
    largest = blocks.abs().amax(-1, keepdim=True)
    # frexp has a mantissa in [0.5, 1), so its exponent is one larger than that of the format.
    exponent = torch.frexp(largest).exponent - 1 - E2M1_EXPONENT
    scale = torch.exp2(exponent.clamp(-126, 127).float())
    return _unblock(round_e2m1(blocks / scale) * scale, weight)


def _blocks(weight: Tensor, size: int) -> Tensor:
    """Return the inputs of each output in blocks (O, B, size), with zeros at the end."""
    rows = weight.reshape(len(weight), -1)
    padded = F.pad(rows, (0, -rows.shape[1] % size))
    return padded.reshape(len(weight), -1, size)


def _unblock(blocks: Tensor, weight: Tensor) -> Tensor:
    rows = blocks.flatten(1)[:, : weight[0].numel()]
    return rows.reshape(weight.shape).to(weight.dtype)
