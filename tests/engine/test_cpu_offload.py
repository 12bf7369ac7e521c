"""Networks whose blocks have a copy on the device for their own forward pass only."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.engine import Engine, Optimization, cpu_offload
from instil.engine.cpu_offload import (
    device_of,
    offload_blocks,
    offloaded_blocks,
    offloaded_parameters,
    undo_offload,
    without_offload,
)
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.tasks.bases.peak_memory import PeakMemory
from instil.teachers.frozen import Frozen
from tests.engine.sharded_on_ranks import batch_of, texts
from tests.test_parity import on_two_ranks

CPU = torch.device("cpu")


def decoder(depth: int = 3) -> Net:
    torch.manual_seed(0)
    model = causal_transformer(vocabulary=21, length=8, width=8, depth=depth, heads=2)
    return Net(model, taps={"features": ["base_model.stages.0@sequence"]}).requires_grad_(False)


def record_homes(net: Net) -> list[list[bool]]:
    """For each block of each later pass: which blocks have their weights at home meanwhile."""
    stages: nn.ModuleList = net.model.base_model.stages
    homes = [next(stage.parameters()).data_ptr() for stage in stages]
    at_home: list[list[bool]] = []

    def record(*_arguments: object) -> None:
        now = [next(stage.parameters()).data_ptr() for stage in stages]
        at_home.append([here == home for here, home in zip(now, homes, strict=True)])

    for stage in stages:
        stage.norm1.register_forward_hook(record)
    return at_home


ONE_AT_A_TIME = [[False, True, True], [True, False, True], [True, True, False]]
BATCH = {"tokens": torch.arange(10).view(2, 5)}


def test_one_block_at_a_time() -> None:
    net = decoder()
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    at_home = record_homes(net)
    plain = net(BATCH)
    at_home.clear()
    assert len(offload_blocks(net)) == 3
    assert offload_blocks(net) == []
    outputs = net.to(CPU)(BATCH)
    for role in ("logits", "features"):
        torch.testing.assert_close(outputs[role], plain[role], atol=0, rtol=0)
    assert at_home == ONE_AT_A_TIME
    # A pass that ends after a tap, or by an error, frees the copy too.
    net(BATCH, roles=frozenset({"features"}), stop=True)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        net.model.base_model.stages[1](torch.zeros(1, 2, 3), None)
    at_home.clear()
    torch.testing.assert_close(net.state_dict(), expected, atol=0, rtol=0)
    copied = copy.deepcopy(net)
    undo_offload(offloaded_blocks(net))
    net(BATCH)
    assert at_home == [[True] * 3] * 3
    assert len(offloaded_blocks(copied)) == 3
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    torch.testing.assert_close(copied(BATCH)["logits"], plain["logits"], atol=0, rtol=0)


def test_memory_of_one_block() -> None:
    net = decoder(depth=6)
    block = sum(parameter.nbytes for parameter in net.model.base_model.stages[0].parameters())
    peaks = []
    with torch.no_grad():
        for _ in range(2):
            with PeakMemory() as live:
                net(BATCH)
            peaks.append(live.peak)
            offload_blocks(net)
    assert block <= peaks[1] - peaks[0] < 2 * block


def test_devices() -> None:
    net = decoder()
    offload_blocks(net)
    net.to("meta")
    weights = offloaded_parameters(net)
    assert {parameter.device.type for parameter in weights} == {"cpu"}
    others = set(net.parameters()) - weights
    assert {parameter.device.type for parameter in others} == {"meta"}
    assert device_of(net) == torch.device("meta")
    net.half()
    assert device_of(net) == torch.device("meta")
    assert {(p.dtype, p.device.type) for p in offloaded_parameters(net)} == {(torch.half, "cpu")}
    undo_offload(offloaded_blocks(net))
    net.to("meta")
    assert {parameter.device.type for parameter in net.parameters()} == {"meta"}
    assert device_of(nn.ReLU()) == CPU


def test_latency_on_the_cpu_has_no_copies() -> None:
    net = decoder()
    at_home = record_homes(net)
    offload_blocks(net)
    with without_offload(net):
        net(BATCH)
    assert at_home == [[True] * 3] * 3
    at_home.clear()
    net(BATCH)
    assert at_home == ONE_AT_A_TIME


def test_weights_that_others_read_too() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(3, 3)) for _ in range(2))
            self.head = nn.Linear(3, 3)
            self.head.weight = self.blocks[0][0].weight

    model = Tied()
    offload_blocks(model)
    shared = model.head.weight
    assert offloaded_parameters(model) == {*model.blocks.parameters()} - {shared}


def test_gradients_of_inputs() -> None:
    torch.manual_seed(0)
    shapes = (nn.Linear(4, 4), nn.Conv1d(3, 3, 1), nn.LayerNorm(4))
    model = nn.Sequential(*(nn.Sequential(layer, nn.Tanh()) for layer in shapes))
    teacher = Frozen(Net(model))
    image = torch.randn(2, 3, 4, requires_grad=True)

    def gradient() -> tuple[Tensor, int]:
        with PeakMemory() as live:
            logits: Tensor = teacher({"image": image}, grad=True)["logits"]
            saved = live.now
        return torch.autograd.grad(logits.square().sum(), image)[0], saved

    plain, bytes_of_graph = gradient()
    offload_blocks(teacher)
    offloaded_gradient, bytes_of_offloaded_graph = gradient()
    torch.testing.assert_close(offloaded_gradient, plain, atol=0, rtol=0)
    # The graph keeps no copy of a weight.
    assert bytes_of_offloaded_graph == bytes_of_graph
    model.requires_grad_(True)
    with pytest.raises(ValueError, match=r"teacher.cpu_offload: the weights .* are trained"):
        gradient()


def test_a_step_of_the_engine() -> None:
    results = []
    for is_offloaded in (False, True):
        scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
        if is_offloaded:
            offload_blocks(scheme.teacher)
        engine = Engine("cpu", "bfloat16")
        engine.prepare(scheme, batch_of(0))
        engine.setup(scheme, lambda learner: Optimization("adamw", {"lr": 0.01}))
        assert len(offloaded_blocks(scheme)) == 2 * is_offloaded
        with engine.autocast():
            update = next(scheme.step(batch_of(0)))
        engine.backward(update, {"kd": torch.tensor(1.0)}, last=True)
        engine.step("student")
        results.append(scheme.student.state_dict())
    torch.testing.assert_close(results[1], results[0], atol=0, rtol=0)


def test_page_locked_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weight = torch.ones(2)
    other = torch.zeros(2)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: other)
    cuda = torch.device("cuda", 0)
    assert cpu_offload._pinned(weight, cuda) is other
    assert cpu_offload._pinned(weight, CPU) is weight
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cpu_offload._pinned(weight, cuda) is weight
    monkeypatch.delenv("LOCAL_WORLD_SIZE")

    def fail(_tensor: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Tensor, "pin_memory", fail)
    with caplog.at_level(logging.WARNING, "instil"):
        assert cpu_offload._pinned(weight, cuda) is weight
    assert "pageable memory (out of memory)" in caplog.text


@pytest.mark.slow
def test_ensembles_on_two_processes(tmp_path: Path) -> None:
    results: dict[str, Any] = on_two_ranks("tests.engine.offloaded_on_ranks", tmp_path / "two.pt")
    plain, offloaded_too, sharded, offloaded_shards = results.values()
    torch.testing.assert_close(offloaded_too["weights"], plain["weights"], atol=0, rtol=0)
    torch.testing.assert_close(offloaded_shards["weights"], sharded["weights"], atol=0, rtol=0)
    torch.testing.assert_close(sharded["weights"], plain["weights"], atol=2e-5, rtol=0)
    blocks = [f"members.{i}.net.model.base_model.stages.{j}" for i in (0, 1) for j in (0, 1)]
    assert sharded["units"] == [("", False), *((name, False) for name in blocks)]
    assert offloaded_shards["units"] == [
        ("", False),
        *((name, name.startswith("members.0")) for name in blocks),
    ]
    assert plain["units"] == offloaded_too["units"] == []
