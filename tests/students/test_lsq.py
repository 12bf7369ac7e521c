"""Learned steps: values and gradients against formulas, and the exported integers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net, Outputs
from instil.networks.cnn import cnn
from instil.networks.vit import vit
from instil.students.lsq import LSQConv2d, LSQLinear, lsq, lsq_round
from instil.students.quantized import quantized
from instil.students.sparse import sparse
from tests.students.nets import llama, logits, observe

SLOW = pytest.mark.slow
IMAGES = {"image": torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))}


def outputs_of(model: nn.Module) -> Iterator[Outputs]:
    with torch.no_grad():
        yield {"logits": model(IMAGES["image"])}


def test_values_and_gradients_match_the_formulas() -> None:
    values = torch.tensor([0.3, -0.6, 1.74, 9.0, -9.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    lower, upper = torch.tensor(-4.0), torch.tensor(3.0)
    rounded = lsq_round(values, step, lower, upper, 5)
    # The upper bound 3 clips 1.74 / 0.5.
    assert rounded.tolist() == [0.5, -0.5, 1.5, 1.5, -2.0]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    (rounded * weights).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 2.0, 0.0, 0.0, 0.0]
    # Eq. 3: round(v / s) - v / s inside, the bound outside; times 1 / sqrt(N Q) of section 2.2.
    by_step = [1 - 0.6, -1 + 1.2, 3.0, 3.0, -4.0]
    expected = sum(w * g for w, g in zip(weights.tolist(), by_step, strict=True)) / math.sqrt(15)
    assert step.grad is not None
    assert step.grad.item() == pytest.approx(expected, rel=1e-5)


def test_initial_steps_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 5), nn.Linear(5, 2))
    rows = torch.randn(7, 4)
    with torch.no_grad():
        # Few large values: the steps of the paper are the smaller ones.
        model[2].weight[:, 0] = 3
        model[0].weight[0] *= 50

    def run(net: nn.Module) -> Iterator[Outputs]:
        with torch.no_grad():
            yield {"logits": net(rows)}

    weight = model[2].weight.detach().clone()
    hidden = model[1](model[0](rows)).detach()
    lsq(model, 4, observe=run)
    layer = model[2]
    expected = 2 * weight.abs().mean(1) / math.sqrt(7)
    assert (expected < weight.abs().amax(1) / 7).all()
    torch.testing.assert_close(layer.weight_quantizer.step.detach().flatten(), expected)
    # Outputs of ReLU are not negative: integers from 0 to 15.
    inputs = layer.input_quantizer
    assert (inputs.lower.item(), inputs.upper.item()) == (0, 15)
    assert inputs.step.item() == pytest.approx(2 * hidden.mean().item() / math.sqrt(15), rel=1e-5)
    ends = [part.weight_quantizer.upper.item() for part in (model[0], layer, model[3])]
    assert ends == [127, 7, 127]
    # With 8 bits the step of the paper would be wider than all weights need.
    last = model[3].weight.detach().abs().amax(1) / 127
    torch.testing.assert_close(model[3].weight_quantizer.step.detach().flatten(), last)


def test_weights_and_steps_learn_and_the_layer_computes_with_the_grid() -> None:
    model: Any = lsq(cnn(3, width=4, stages=2), 4, observe=outputs_of)
    model(IMAGES["image"]).square().sum().backward()
    layers = [part for part in model.modules() if isinstance(part, (LSQConv2d, LSQLinear))]
    assert len(layers) == 3
    for layer in layers:
        assert layer.input_quantizer is not None
        for parameter in (layer.weight, layer.weight_quantizer.step, layer.input_quantizer.step):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
        ratio = layer.weight_quantizer(layer.weight) / layer.weight_quantizer.step
        torch.testing.assert_close(ratio, ratio.round())


def test_the_gradient_of_a_step_does_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    model: Any = lsq(nn.Sequential(nn.Linear(4, 3)), 4)
    tokens = torch.randn(2, 5, 4)
    gradients = []
    for padding in (0, 7):
        padded = torch.nn.functional.pad(tokens, (0, 0, 0, padding))
        step = model[0].input_quantizer.step
        (gradient,) = torch.autograd.grad(model(padded)[:, :5].square().sum(), step)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_eight_bits_are_near_and_a_head_over_tokens_stays() -> None:
    model = llama()
    expected = logits(model)
    state = model.lm_head.weight.clone()
    rounded = lsq(model, 8, observe=observe)
    assert torch.equal(rounded.lm_head.weight, state)
    assert 0 < (logits(rounded) - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_the_state_has_the_sign_of_the_inputs() -> None:
    trained: Any = lsq(cnn(3, width=4, stages=2), observe=outputs_of).eval()
    fresh: Any = lsq(cnn(3, width=4, stages=2)).eval()
    fresh.load_state_dict(trained.state_dict())
    image = IMAGES["image"]
    torch.testing.assert_close(fresh(image), trained(image))


@pytest.mark.parametrize(
    ("bits", "build"),
    [(4, cnn), pytest.param(8, cnn, marks=SLOW), pytest.param(4, vit, marks=SLOW)],
)
def test_the_exported_file_has_integer_weights_of_the_grid(
    bits: Any, build: Any, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from instil.export.onnx import to_onnx

    torch.manual_seed(0)
    model = lsq(build(3, width=8).eval(), bits, observe=outputs_of)
    facts = to_onnx(Net(model), IMAGES, tmp_path / "student.onnx")
    assert facts["max_difference"] < 1e-4
    graph = onnx.load(tmp_path / "student.onnx").graph
    integers = {
        one.name: onnx.numpy_helper.to_array(one)
        for one in graph.initializer
        if one.data_type == onnx.TensorProto.UINT8 and len(one.dims) > 1
    }
    layers = [part for part in model.modules() if isinstance(part, (LSQConv2d, LSQLinear))]
    assert len(integers) == len(layers)
    assert sum(one.size for one in integers.values()) == sum(p.weight.numel() for p in layers)
    largest = sorted(int(abs(one.astype(int) - 128).max()) for one in integers.values())
    assert largest[0] <= 2 ** (bits - 1)
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert ("Clip" in kinds) == (bits == 4)


def test_products_of_the_largest_integers_do_not_overflow_in_the_exported_file(
    tmp_path: Path,
) -> None:
    """Sums of two products of signed integers overflow on processors without VNNI."""
    pytest.importorskip("onnxruntime")
    from instil.export.onnx import to_onnx

    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.uniform_(model[1].weight, 0.9, 1.0)
    facts = to_onnx(Net(lsq(model, observe=outputs_of)), IMAGES, tmp_path / "student.onnx")
    scale = model(IMAGES["image"]).abs().max().item()
    assert facts["max_difference"] < 0.005 * scale


def test_a_folder_of_transformers_has_rounded_weights_and_no_quantised_activations() -> None:
    from instil.export.transformers import to_standard_model

    model = lsq(llama(), 4, activations=False)
    standard = to_standard_model(model)
    assert not any(isinstance(part, LSQLinear) for part in standard.modules())
    torch.testing.assert_close(logits(standard), logits(model))
    with pytest.raises(ValueError, match=r"lsq: this file has no quantised activations"):
        to_standard_model(lsq(llama(), observe=observe))


def test_a_model_without_a_plain_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="has no plain linear layer or convolution to quantise"):
        lsq(nn.Embedding(2, 3))


def test_derived_layers_that_stay_in_float_are_named_in_a_warning() -> None:
    class Scaled(nn.Linear):
        """Linear layer with another forward pass."""

        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    model = nn.Sequential(nn.Linear(3, 4), Scaled(4, 4), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match=r"1 layers stay in float, such as 1 \(Scaled\)"):
        lsq(model)
    assert type(model[1]) is Scaled


@pytest.mark.parametrize("change", [sparse, quantized])
def test_weights_that_are_sparse_or_rounded_already_are_refused(change: Any) -> None:
    # Only the first layer, with one input channel, stays plain: the others would stay float.
    model = change(cnn(3, width=4))
    with pytest.raises(ValueError, match=r"is sparse, rounded .* Name lsq before sparse"):
        lsq(model, observe=outputs_of)
    both: Any = sparse(lsq(cnn(3, width=4), observe=outputs_of))
    assert sum(isinstance(part, (LSQLinear, LSQConv2d)) for part in both.modules()) == 4


def test_integer_layers_are_not_quantised_twice(tmp_path: Path) -> None:
    from instil.plan.onnx_export import write_int8

    experiment: Any = None
    net = Net(lsq(cnn(3, width=4)))
    with pytest.raises(ValueError, match=r"int8: the student has learned steps"):
        write_int8(tmp_path, experiment, net)


def tensor_names(state: dict[str, Tensor]) -> set[str]:
    return set(state)


def test_weights_keep_their_names() -> None:
    before = tensor_names(cnn(3).state_dict())
    assert before <= tensor_names(lsq(cnn(3)).state_dict())
