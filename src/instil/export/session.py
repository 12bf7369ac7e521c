"""An ONNX file that answers batches as a net does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from instil.core import Batch, Outputs, first_tensor


class Session(nn.Module):
    """Runs an .onnx file on the CPU: ``session(batch)`` gives ``logits`` on the batch's device, so what scores a net scores it too.

    Uses as many threads as torch does. Raises ImportError without the extra ``export``, ValueError for a file that is not an ONNX graph of ours.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path}")
        try:
            self.session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class of their own
            raise ValueError(
                f"{path} is not an ONNX file that onnxruntime can run: {error}"
            ) from error
        self.names, gives = (
            [value.name for value in self.session.get_inputs()],
            [value.name for value in self.session.get_outputs()],
        )
        if gives != ["logits"]:
            raise ValueError(
                f"{path} takes {self.names} and gives {gives}; expected a graph to 'logits'"
            )

    def forward(self, batch: Batch) -> Outputs:
        """``logits`` of what the file takes, by its names in the batch: ``image`` (N, C, H, W) in [0, 1], or ``input_ids`` ..."""
        (logits,) = self.session.run(["logits"], arrays(batch, self.names))
        return {"logits": torch.from_numpy(logits).to(first_tensor(batch).device)}


def arrays(batch: Batch, names: Sequence[str]) -> dict[str, Any]:
    """These tensors as onnxruntime takes them: float32, or whole numbers."""
    tensors = {name: batch[name].detach().cpu() for name in names}
    return {
        name: (
            value.float() if value.is_floating_point() or value.dtype == torch.uint8 else value
        ).numpy()
        for name, value in tensors.items()
    }


def _runtime() -> ModuleType:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError(
            'running an ONNX file needs onnxruntime: pip install "instil[export]"'
        ) from error
    module: ModuleType = onnxruntime
    return module
