"""Taps return the outputs of modules in any model and wrapper."""

from __future__ import annotations

import copy
import io
import pickle
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import Batch, Net, Outputs, as_net


class Model(nn.Module):
    """Network of a stem, one layer that is called three times, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice, self.head, self.never = (
            nn.Linear(6, 4),
            nn.Linear(4, 4),
            nn.Linear(4, 3),
            nn.Linear(4, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.twice(x)
        return self.head(x)


def model() -> Model:
    torch.manual_seed(0)
    return Model()


def batch(count: int = 5) -> Batch:
    return {"x": torch.randn(count, 6, generator=torch.Generator().manual_seed(1))}


def expected(net: Model, x: Tensor) -> list[Tensor]:
    """Return the output of the stem and of the three calls."""
    values = [F.linear(x, net.stem.weight, net.stem.bias)]
    for _ in range(3):
        values.append(F.linear(values[-1], net.twice.weight, net.twice.bias))
    return values


def test_path_list_input_and_all_calls() -> None:
    inner = model()
    taps: dict[str, str | list[str]] = {
        "one": "stem",
        "several": ["stem", "twice"],
        "input": "head:in",
        "calls": "twice[*]",
        "inputs": "twice[*]:in",
        "nested": ["stem", "twice[*]"],
        "root": "",
    }
    net = Net(inner, taps=taps)
    outputs, values = net(batch()), expected(inner, batch()["x"])
    for name, value in {"one": values[0], "input": values[3], "root": outputs["logits"]}.items():
        assert torch.equal(outputs[name], value), name
    for name, value in {
        "several": (values[0], values[3]),
        "calls": tuple(values[1:]),
        "inputs": tuple(values[:3]),
    }.items():
        assert isinstance(outputs[name], tuple)
        assert all(torch.equal(a, b) for a, b in zip(outputs[name], value, strict=True)), name
    assert torch.equal(outputs["nested"][0], values[0])
    assert len(outputs["nested"][1]) == 3


def test_the_gradient_flows_through_a_tap() -> None:
    net = Net(model(), taps={"one": "stem"})
    net(batch())["one"].sum().backward()
    assert net.model.stem.weight.grad is not None
    assert net.model.head.weight.grad is None


def test_a_wrong_path_is_answered_with_the_closest_names() -> None:
    with pytest.raises(
        ValueError, match=r"taps\.one: Model has no module 'steem'\. Did you mean stem"
    ):
        Net(model(), taps={"one": "steem"})


@pytest.mark.parametrize("text", ["stem[1]", "stem:out", "stem:in[*]", "stem[*"])
def test_a_path_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"taps\.one: '.*' is not a path\. Write path, path\[\*\]"):
        Net(model(), taps={"one": text})


def test_a_tap_that_never_fired_is_an_error_and_with_another_call_left_out() -> None:
    net = Net(model(), taps={"one": "never"})
    with pytest.raises(RuntimeError, match=r"taps\.one: 'never' never fired"):
        net(batch())
    assert set(net(batch(), call=lambda inner, b: {"hidden": inner.stem(b["x"])})) == {"hidden"}


def test_another_call_of_the_same_net_keeps_the_taps_that_fired() -> None:
    net = Net(model(), taps={"one": "stem", "input": "head:in"})
    outputs = net(batch(), call=lambda inner, b: {"hidden": 2 * inner.stem(b["x"])})
    assert set(outputs) == {"hidden", "one"}
    assert torch.equal(outputs["hidden"], 2 * outputs["one"])


@pytest.mark.parametrize("path", ["0", "1:in"])
def test_a_tensor_changed_in_place_afterwards_is_an_error(path: str) -> None:
    net = Net(nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True)), taps={"one": path})
    with pytest.raises(
        RuntimeError, match=rf"taps\.one: '{path[0]}' was changed in place after it was recorded"
    ):
        net(batch())
    outputs = Net(nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True)), taps={"one": "1"})(batch())
    assert (outputs["one"] >= 0).all()


def test_a_module_that_gives_no_tensor() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": x}

    with pytest.raises(
        RuntimeError, match=r"taps\.one: '' gave a dict, not a tensor; tap a module inside it"
    ):
        Net(Pair(), taps={"one": ""})(batch())


def test_a_tuple_from_a_module_is_its_first_tensor() -> None:
    net = Net(
        nn.GRU(6, 4), call=lambda inner, b: {"logits": inner(b["x"][:, None])[0]}, taps={"one": ""}
    )
    assert torch.equal(net(batch())["one"], net(batch())["logits"])


def test_d8_batch_size_one_keeps_its_dimension() -> None:
    outputs = Net(model(), taps={"one": "stem", "calls": "twice[*]"})(batch(1))
    assert outputs["one"].shape == (1, 4)
    assert [value.shape for value in outputs["calls"]] == [(1, 4)] * 3


def test_no_tensor_is_kept_alive_after_the_forward() -> None:
    net = Net(model(), taps={"one": "stem", "calls": "twice[*]"})
    outputs = net(batch())
    alive = [
        weakref.ref(outputs["one"]),
        *map(weakref.ref, outputs["calls"]),
        weakref.ref(outputs["logits"]),
    ]
    del outputs
    assert [reference() for reference in alive] == [None] * 5


def test_no_tensor_is_kept_alive_where_the_forward_fails() -> None:
    seen: list[weakref.ref[Tensor]] = []

    def fails(inner: nn.Module, b: Batch) -> Outputs:
        seen.append(weakref.ref(inner.stem(b["x"])))
        raise KeyError("gone")

    net = Net(model(), fails, taps={"one": "stem"})
    with pytest.raises(KeyError):
        net(batch())
    assert net._recorder.active is None
    assert seen[0]() is None


def test_a_forward_outside_of_the_net_records_nothing() -> None:
    net = Net(model(), taps={"one": "stem"})
    net.model(batch()["x"])
    assert net._recorder.active is None


def test_two_nets_around_one_model_have_taps_of_their_own() -> None:
    inner = model()
    first, second = Net(inner, taps={"one": "stem"}), Net(inner, taps={"two": "head:in"})
    assert set(first(batch())) == {"logits", "one"}
    assert set(second(batch())) == {"logits", "two"}


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copy_has_its_own_taps(how: str) -> None:
    net = Net(model(), taps={"one": "stem"})
    if how == "torch.save":
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    else:
        other = copy.deepcopy(net) if how == "deepcopy" else pickle.loads(pickle.dumps(net))
    with torch.no_grad():
        other.model.stem.weight.zero_()
        other.model.stem.bias.fill_(7)
    assert torch.equal(other(batch())["one"], torch.full((5, 4), 7.0))
    assert torch.equal(net(batch())["one"], expected(net.model, batch()["x"])[0])


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("replicates", [False, True])
def test_d14_wrapper_prefixes_may_be_left_out(replicates: bool, compiles: bool) -> None:
    inner = model()
    wrapped: nn.Module = nn.DataParallel(inner) if replicates else inner
    if compiles:
        wrapped = torch.compile(wrapped, backend="eager")  # type: ignore[assignment]
    net = Net(wrapped, taps={"one": "stem", "input": "head:in"})
    outputs, values = net(batch()), expected(inner, batch()["x"])
    assert torch.equal(outputs["one"], values[0])
    assert torch.equal(outputs["input"], values[3])


def test_d14_distributed_data_parallel_keeps_its_taps() -> None:
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        inner = model()
        net = Net(nn.parallel.DistributedDataParallel(inner), taps={"one": "stem"})
        assert torch.equal(net(batch())["one"], expected(inner, batch()["x"])[0])
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("how", ["net.compile", "torch.compile"])
def test_compiled_whole_with_the_eager_values(how: str) -> None:
    torch.compiler.reset()
    net = Net(model(), taps={"one": "stem", "input": "head:in", "calls": "twice[*]"})
    eager = net(batch())
    if how == "net.compile":
        net.compile(fullgraph=True, backend="aot_eager")
        outputs = net(batch())
    else:
        outputs = torch.compile(net, fullgraph=True, backend="aot_eager")(batch())
    assert set(outputs) == set(eager)
    for role in ("logits", "one", "input"):
        assert torch.allclose(outputs[role], eager[role], atol=1e-6), role
    assert all(
        torch.allclose(a, b, atol=1e-6)
        for a, b in zip(outputs["calls"], eager["calls"], strict=True)
    )
    outputs["one"].sum().backward()
    assert net.model.stem.weight.grad is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: type) -> None:
    net = Net(model(), taps={"one": "stem"})
    with mode():
        assert torch.equal(net(batch())["one"], expected(net.model, batch()["x"])[0])


def test_resnet_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    net = Net(
        models.resnet18().eval(),
        taps={"features": ["layer1", "layer2", "layer3", "layer4"], "embedding": "fc:in"},
    )
    outputs = net({"image": torch.randn(1, 3, 64, 64)})
    assert [tuple(stage.shape[1:]) for stage in outputs["features"]] == [
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
    ]
    assert torch.allclose(outputs["features"][-1].mean((2, 3)), outputs["embedding"], atol=1e-6)


def test_vision_transformer_of_timm() -> None:
    timm = pytest.importorskip("timm")
    inner = timm.create_model(
        "vit_tiny_patch16_224", pretrained=False, img_size=64, depth=3, num_classes=5
    ).eval()
    outputs = Net(
        inner, taps={"features": [f"blocks.{i}" for i in range(3)], "embedding": "head:in"}
    )({"image": torch.randn(2, 3, 64, 64)})
    assert [tuple(stage.shape) for stage in outputs["features"]] == [(2, 17, 192)] * 3
    assert torch.allclose(
        inner.norm(outputs["features"][-1])[:, 0], outputs["embedding"], atol=1e-5
    )


def test_a_net_is_taken_as_it_is_and_a_module_is_made_one() -> None:
    net = Net(model())
    assert as_net(net) is net
    assert torch.equal(as_net(net.model)(batch())["logits"], net(batch())["logits"])


def test_a_weight_is_a_view_with_its_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    net = Net(model, taps={"head": "0:weight", "last": "1:weight"})
    outputs = net({"x": torch.randn(5, 3)})
    weight, bias = outputs["head"]
    assert torch.equal(weight, model[0].weight)
    assert torch.equal(bias, model[0].bias)
    assert not isinstance(weight, nn.Parameter)
    assert torch.equal(outputs["last"][1], torch.zeros(2))
    (weight.sum() + bias.sum()).backward()
    assert torch.equal(model[0].weight.grad, torch.ones(4, 3))


def test_the_weight_of_a_convolution_is_flat_and_a_teacher_may_stop_after_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    net = Net(model, taps={"head": "0:weight"})
    batch = {"x": torch.randn(2, 3, 2, 2)}
    assert net.can_stop(frozenset({"head"}), batch)
    outputs = net(batch, roles=frozenset({"head"}), stop=True)
    assert [tuple(part.shape) for part in outputs["head"]] == [(4, 3), (4,)]


def test_a_weight_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"taps\.head: '1' is a ReLU and has no weight"):
        Net(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), taps={"head": "1:weight"})


def test_the_rest_of_a_net_runs_on_other_features() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    net = Net(model, taps={"middle": "0"})
    batch, other = {"x": torch.randn(5, 3)}, torch.randn(5, 4, requires_grad=True)
    outputs = net(batch, replace={"0": other})
    assert torch.equal(outputs["logits"], model[2](other.relu()))
    assert outputs["middle"] is other
    assert torch.equal(net(batch)["logits"], model(batch["x"])), (
        "the replacement is gone afterwards"
    )
    with pytest.raises(ValueError, match="replace: Sequential has no module '7'"):
        net(batch, replace={"7": other})
