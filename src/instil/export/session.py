"""An ONNX file that answers batches as a net does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from instil.core import Batch, Outputs


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
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class of their own
            raise ValueError(f"{path} is not an ONNX file that onnxruntime can run: {error}") from error
        names = [value.name for value in self.session.get_inputs()], [value.name for value in self.session.get_outputs()]
        if names != (["image"], ["logits"]):
            raise ValueError(f"{path} takes {names[0]} and gives {names[1]}; expected a graph from 'image' to 'logits'")

    def forward(self, batch: Batch) -> Outputs:
        """(N, C, H, W) images in [0, 1] to ``logits``."""
        image = batch["image"]
        (logits,) = self.session.run(["logits"], {"image": image.detach().float().cpu().numpy()})
        return {"logits": torch.from_numpy(logits).to(image.device)}


def _runtime() -> ModuleType:
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise ImportError('running an ONNX file needs onnxruntime: pip install "instil[export]"') from error
    module: ModuleType = onnxruntime
    return module
