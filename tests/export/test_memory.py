"""Memory of an inference, from ONNX Runtime's profile and from PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.export.memory import module_memory, session_memory


class Wide(nn.Module):
    """4 features to 32 and back to 4."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 32, bias=False)
        self.down = nn.Linear(32, 4, bias=False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self.down(self.up(batch["features"]))}


def test_a_network_needs_its_weights_and_its_largest_layer() -> None:
    batch = {"features": torch.zeros(1, 4)}
    net = Wide()
    assert module_memory(net, batch) == 4 * (2 * 4 * 32 + 4 + 32)
    assert module_memory(net, {"features": torch.zeros(3, 4)}) == 4 * (2 * 4 * 32 + 3 * (4 + 32))
    assert not net.up._forward_hooks


def test_a_file_needs_its_size_and_its_largest_operation(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = {
        name: onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)
        for name, shape in {"up": (4, 32), "down": (32, 4)}.items()
    }
    nodes = [
        onnx.helper.make_node("MatMul", ["features", "up"], ["hidden"]),
        onnx.helper.make_node("Sin", ["hidden"], ["wave"]),
        onnx.helper.make_node("MatMul", ["wave", "down"], ["logits"]),
    ]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4])
        for name in ("features", "logits")
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], list(weights.values()))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 9
    path = tmp_path / "student.onnx"
    onnx.save(model, path)
    # The sine reads and writes 32 numbers; only the first sample of a batch is used.
    memory = session_memory(path, {"features": torch.zeros(5, 4)})
    assert memory == path.stat().st_size + 4 * (32 + 32)
    assert list(tmp_path.iterdir()) == [path]
