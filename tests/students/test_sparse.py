"""N:M sparsity: masks against a loop, gradients, and the pattern after training and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.networks.cnn import cnn
from instil.students.quantized import quantized
from instil.students.sparse import n_m_mask, sparse


def largest_count(weight: Tensor, m: int) -> int:
    """Largest number of weights that are not zero among m neighbouring inputs."""
    groups = weight.movedim(1, -1).reshape(-1, m)
    return int((groups != 0).sum(1).max())


@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 3, 3)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2)])
def test_the_mask_has_the_largest_weights(shape: tuple[int, ...], n: int, m: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mask = n_m_mask(weight, n, m).movedim(1, -1).reshape(-1, m)
    for row, selected in zip(weight.movedim(1, -1).reshape(-1, m), mask, strict=True):
        ranked = sorted(range(m), key=lambda index: -abs(row[index].item()))
        assert [index for index in range(m) if selected[index]] == sorted(ranked[:n])


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_gradient_passes_the_mask(decay: float) -> None:
    layer: Any = sparse(nn.Linear(4, 3), decay=decay)
    inputs = torch.randn(5, 4)
    layer(inputs).sum().backward()
    original = layer.parametrizations.weight.original
    masked = layer.weight == 0
    assert masked.sum() == 6
    expected = inputs.sum(0).expand(3, 4) + decay * masked * original.detach()
    torch.testing.assert_close(original.grad, expected)


def test_a_weight_returns_when_it_grows() -> None:
    layer: Any = sparse(nn.Linear(4, 1, bias=False), 1, 4)
    with torch.no_grad():
        layer.parametrizations.weight.original.copy_(torch.tensor([[3.0, 1.0, 2.0, 0.0]]))
        assert layer.weight.tolist() == [[3, 0, 0, 0]]
        layer.parametrizations.weight.original[0, 2] = 4
        assert layer.weight.tolist() == [[0, 0, 4, 0]]


def test_quantised_sparse_weights_keep_the_pattern() -> None:
    layer: Any = quantized(sparse(nn.Linear(8, 4)), 4)
    assert largest_count(layer.weight.detach(), 4) == 2


def test_the_exported_file_is_sparse(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from instil.export.onnx import to_onnx

    model = sparse(cnn(3, 1, width=4, stages=2)).eval()
    to_onnx(Net(model), {"image": torch.rand(3, 1, 8, 8)}, tmp_path / "student.onnx")
    graph = onnx.load(tmp_path / "student.onnx").graph
    weights = [torch.tensor(onnx.numpy_helper.to_array(one)) for one in graph.initializer]
    sizes = {largest_count(one, 4) for one in weights if one.ndim == 4 and one.shape[1] % 4 == 0}
    # The mask is computed once, not in the graph.
    assert sizes == {2}
    assert {node.op_type for node in graph.node} <= {
        "Conv",
        "Relu",
        "MaxPool",
        "ReduceMean",
        "Gemm",
    }


def test_what_cannot_be_sparse_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"n: expected a number below m = 4, got 4"):
        sparse(nn.Linear(8, 4), 4, 4)
    with pytest.raises(ValueError, match=r"no linear layer or convolution whose inputs"):
        sparse(nn.Linear(6, 4))
