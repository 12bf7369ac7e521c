"""Networks with copies of one block at a time."""

import torch
from torch import nn

from instil.core import Net
from instil.engine.parking import parked, prepare_parked
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.features.fitnet import FitNet
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen


def test_one_block_at_a_time() -> None:
    net = Net(causal_transformer(vocabulary=21, length=8, width=8, depth=3, heads=2))
    stages: nn.ModuleList = net.model.base_model.stages
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    homes = [next(stage.parameters()).data_ptr() for stage in stages]
    at_home: list[list[bool]] = []

    def record(*_arguments: object) -> None:
        now = [next(stage.parameters()).data_ptr() for stage in stages]
        at_home.append([here == home for here, home in zip(now, homes, strict=True)])

    for stage in stages:
        stage.norm1.register_forward_hook(record)
    batch = {"tokens": torch.zeros(2, 5, dtype=torch.int64)}
    with torch.no_grad():
        logits = net(batch)["logits"]
        at_home.clear()
        embedding = net.model.base_model.tokens.weight.data_ptr()
        with parked([net], torch.device("cpu")):
            torch.testing.assert_close(net(batch)["logits"], logits, atol=0, rtol=0)
            assert net.model.head.weight.data_ptr() != embedding
    assert at_home == [[False, True, True], [True, False, True], [True, True, False]]
    torch.testing.assert_close(net.state_dict(), expected, atol=0, rtol=0)
    # Hooks are removed, and the head still has the weight of the embedding.
    assert net.model.head.weight.data_ptr() == embedding
    at_home.clear()
    net(batch)
    assert at_home == [[True] * 3] * 3


def test_adapters_of_parked_networks() -> None:
    def tapped(width: int) -> Net:
        model = causal_transformer(vocabulary=21, length=8, width=width, depth=2, heads=2)
        return Net(model, taps={"features": ["base_model.stages.0@sequence"]})

    scheme, other = (Offline(tapped(8), Frozen(tapped(16)), {"fitnet": FitNet()}) for _ in range(2))
    batch = {"tokens": torch.zeros(2, 5, dtype=torch.int64)}
    prepare_parked(scheme, batch, torch.device("cpu"))
    other.prepare(batch)
    shapes = [value.shape for value in other.objectives.parameters()]
    assert [value.shape for value in scheme.objectives.parameters()] == shapes
    assert shapes
    assert next(scheme.step(batch)).losses["fitnet"].isfinite()
