"""Model of an ONNX file, which ONNX Runtime evaluates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instil.functional.log_probabilities import log_of

TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
"""Types of ONNX inputs and their NumPy types."""


class OnnxModel(nn.Module):
    """Model of an ONNX file. It has no gradients and runs on the CPU.

    Images in [0, 1] become whole numbers up to 255 for a file that reads uint8.

    Args:
        file: the file.
        output: output that is the logits; None: the one named ``logits``, or the only one.
        probabilities: whether this output holds probabilities, whose logarithm is returned.

    Raises:
        ValueError: for a file that is not an ONNX model, or an output that it does not have.
    """

    def __init__(self, file: Path, output: str | None = None, probabilities: bool = False):
        super().__init__()
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session: Any = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has exceptions of its own
            raise ValueError(f"{file} cannot be read as an ONNX model: {error}") from error
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.probabilities = probabilities
        names = [item.name for item in self.session.get_outputs()]
        self.output = output or ("logits" if "logits" in names else names[0])
        is_unclear = output is None and len(names) > 1 and "logits" not in names
        if self.output not in names or is_unclear:
            received = "" if output is None else f", got {output}"
            raise ValueError(
                f"{file} has the outputs {', '.join(names)}. Expected the option output with the "
                f"one that is the logits{received}"
            )

    def __deepcopy__(self, memo: Any) -> OnnxModel:
        # A session has no state to copy.
        return self

    def forward(self, *args: Tensor, **kwargs: Tensor | None) -> Tensor:
        """Evaluate the model.

        Args:
            args: inputs in the order of the file.
            kwargs: inputs by name; names that the file does not have are left out.

        Returns:
            The logits.

        Raises:
            ValueError: for a missing input.
        """
        values = {name: value for name, value in kwargs.items() if name in self.inputs}
        free = [name for name in self.inputs if name not in values]
        values |= dict(zip(free, args, strict=False))
        missing = [name for name in self.inputs if values.get(name) is None]
        if missing:
            raise ValueError(
                f"the ONNX model needs the input '{missing[0]}'. Expected "
                f"{', '.join(self.inputs)}, got {', '.join(kwargs) or f'{len(args)} inputs'}"
            )
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        logits = self._evaluate(tensors).to(next(iter(tensors.values())).device)
        return log_of(logits) if self.probabilities else logits

    def _evaluate(self, tensors: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: self._array(name, value) for name, value in tensors.items()}
        size = len(next(iter(arrays.values())))
        fixed = [item.shape[0] for item in self.inputs.values() if item.shape]
        rows = fixed[0] if fixed and isinstance(fixed[0], int) else size
        parts = []
        for start in range(0, size, rows):
            part = {
                name: _filled(array[start : start + rows], rows) for name, array in arrays.items()
            }
            (result,) = self.session.run([self.output], part)
            parts.append(torch.from_numpy(np.asarray(result)))
        return torch.cat(parts)[:size].float()

    def _array(self, name: str, value: Tensor) -> NDArray[Any]:
        kind = TYPES.get(self.inputs[name].type, np.float32)
        value = value.detach().cpu()
        if value.is_floating_point() and not np.issubdtype(kind, np.floating):
            value = _pixels(name, value, kind)
        array: NDArray[Any] = value.numpy().astype(kind, copy=False)
        return array


def _pixels(name: str, value: Tensor, kind: Any) -> Tensor:
    """Images in [0, 1] as whole numbers up to 255; a conversion alone would make them black.

    Raises:
        ValueError: for other floating-point numbers, whose decimals would be lost.
    """
    is_image = value.ndim == 4 and bool(value.min() >= 0) and bool(value.max() <= 1)
    if kind is not np.uint8 or not is_image:
        raise ValueError(
            f"the ONNX model reads {np.dtype(kind).name} numbers as '{name}', which have no "
            f"decimals. Expected whole numbers, or images in [0, 1] for uint8, got {value.dtype} "
            f"of shape {tuple(value.shape)}"
        )
    return (value * 255).round()


def _filled(array: NDArray[Any], rows: int) -> NDArray[Any]:
    """The rows of a batch, with the last one repeated up to the fixed size of the model."""
    missing = rows - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
