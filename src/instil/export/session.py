"""ONNX file as a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from instil.core import Batch, Outputs, first_tensor


class Session(nn.Module):
    """ONNX file that runs on the CPU with the number of threads of torch.

    Args:
        path: ONNX file.
        roles: names of its outputs; None: any.

    Attributes:
        names: names of the inputs, which are keys of a batch.
        roles: names of the outputs.

    Raises:
        ImportError: without the extra ``export``.
        ValueError: for a missing file, or one that is not such a graph.
    """

    def __init__(self, path: str | Path, roles: Sequence[str] | None = ("logits",)):
        super().__init__()
        runtime = _import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not Path(path).is_file():
            raise ValueError(f"path: no such file. Expected an ONNX file, got {path}")
        try:
            self.session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        # The exceptions of onnxruntime have no base class of their own.
        except Exception as error:
            raise ValueError(
                f"{path} is not an ONNX file that onnxruntime can run: {error}"
            ) from error
        self.names = [value.name for value in self.session.get_inputs()]
        self.roles = [value.name for value in self.session.get_outputs()]
        if roles is not None and self.roles != list(roles):
            expected = " and ".join(f"'{role}'" for role in roles)
            noun = "output" if len(roles) == 1 else "outputs"
            raise ValueError(
                f"{path}: wrong outputs. Expected a graph with the {noun} {expected}, got "
                f"{self.roles}"
            )

    def forward(self, batch: Batch) -> Outputs:
        """Compute the outputs for a batch.

        Args:
            batch: a tensor for each name in ``names``, such as ``image`` (N, C, H, W) in [0, 1].

        Returns:
            Outputs by role, on the device of the batch.
        """
        values = self.session.run(self.roles, to_arrays(batch, self.names))
        device = first_tensor(batch).device
        tensors = [torch.from_numpy(value).to(device) for value in values]
        return dict(zip(self.roles, tensors, strict=True))


def to_arrays(batch: Batch, names: Sequence[str]) -> dict[str, Any]:
    """Convert tensors of a batch to NumPy arrays for onnxruntime.

    Args:
        batch: batch with these keys.
        names: keys to convert.

    Returns:
        Arrays of float32, or of whole numbers; uint8 (an image) becomes float32, too.
    """
    arrays = {}
    for name in names:
        tensor = batch[name].detach().cpu()
        if tensor.is_floating_point() or tensor.dtype == torch.uint8:
            tensor = tensor.float()
        arrays[name] = tensor.numpy()
    return arrays


def _import_runtime() -> ModuleType:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            'running an ONNX file needs onnxruntime: pip install "instil[export]"'
        ) from error
    module: ModuleType = onnxruntime
    return module
