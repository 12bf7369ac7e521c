"""Preparation of schemes with copies of one block at a time."""

import torch

from instil.core import Net
from instil.engine.cpu_offload import offload_blocks, offloaded_blocks
from instil.engine.offloaded_preparation import offloaded, prepare_offloaded
from instil.networks.causal_transformer import causal_transformer
from instil.objectives.features.fitnet import FitNet
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from tests.engine.test_cpu_offload import BATCH, CPU, ONE_AT_A_TIME, decoder, record_homes


def test_offload_for_a_context() -> None:
    net = decoder()
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    at_home = record_homes(net)
    with torch.no_grad():
        logits = net(BATCH)["logits"]
        at_home.clear()
        embedding = net.model.base_model.tokens.weight.data_ptr()
        with offloaded([net], CPU):
            torch.testing.assert_close(net(BATCH)["logits"], logits, atol=0, rtol=0)
            assert net.model.head.weight.data_ptr() != embedding
    assert at_home == ONE_AT_A_TIME
    torch.testing.assert_close(net.state_dict(), expected, atol=0, rtol=0)
    # The head still has the weight of the embedding.
    assert net.model.head.weight.data_ptr() == embedding
    assert offloaded_blocks(net) == []
    # Blocks that were offloaded before stay so.
    offload_blocks(net)
    with offloaded([net], CPU):
        pass
    assert len(offloaded_blocks(net)) == 3


def test_adapters_of_offloaded_networks() -> None:
    def tapped(width: int) -> Net:
        model = causal_transformer(vocabulary=21, length=8, width=width, depth=2, heads=2)
        return Net(model, taps={"features": ["base_model.stages.0@sequence"]})

    scheme, other = (Offline(tapped(8), Frozen(tapped(16)), {"fitnet": FitNet()}) for _ in range(2))
    batch = {"tokens": torch.zeros(2, 5, dtype=torch.int64)}
    prepare_offloaded(scheme, batch, CPU)
    other.prepare(batch)
    shapes = [value.shape for value in other.objectives.parameters()]
    assert [value.shape for value in scheme.objectives.parameters()] == shapes
    assert shapes
    assert next(scheme.step(batch)).losses["fitnet"].isfinite()
