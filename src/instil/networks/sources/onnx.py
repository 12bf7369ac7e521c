"""Source ``onnx:``: teachers of ONNX files, such as ``onnx:teacher.onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from instil.cards import suggestion
from instil.networks.model_source import ModelRequest, ModelSource
from instil.networks.onnx_model import OnnxModel
from instil.networks.unknown_options import check_options


class OnnxSource(ModelSource):
    """ONNX files, relative to the recipe. They are teachers only: they have no gradients.

    Options: ``output``, the name of the output that is the logits; ``probabilities: true`` if it
    holds probabilities. Images of a fixed size in the file are resized to it.
    """

    package = "onnxruntime"
    extra = "export"
    learns_by = "nothing"

    def build(self, request: ModelRequest) -> nn.Module:
        self.library(request.spec)
        check_options(request.spec, request.options, ("output", "probabilities"))
        if not request.path.is_file():
            neighbours = [file.name for file in request.path.parent.glob("*.onnx")]
            raise ValueError(
                f"no such file: {request.path}.{suggestion(request.path.name, neighbours)}"
            )
        model: Any = OnnxModel(request.path, **request.options)
        model.expects = _expected_input(model)
        return model  # type: ignore[no-any-return]

    def files(self, request: ModelRequest) -> list[Path]:
        return [request.path]


def _expected_input(model: OnnxModel) -> dict[str, Any]:
    """Fixed height and width of the only input, if it is an image."""
    shapes = [item.shape for item in model.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return {}
    size = shapes[0][2:]
    return {"size": tuple(size)} if all(isinstance(side, int) for side in size) else {}
