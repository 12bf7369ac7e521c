"""Simulations of federated distillation on Flower, against the functions alone."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instil.integrations import federated
from tests.integrations.federated.networks import (
    NUM_CLASSES,
    STEP,
    TinyGenerator,
    images,
    network,
    vector,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower imports old names of click
    pytest.importorskip("flwr")
    from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message
    from flwr.serverapp.strategy import FedAvg

    from instil.integrations.federated.client_apps import averaging_app, consensus_app
    from instil.integrations.federated.in_process_grid import InProcessGrid
    from instil.integrations.federated.strategies import FedDF, FedFTG, FedMD

LABELS = ([0, 0, 0, 1], [1, 1, 2, 2, 2, 2], [0, 2])
PUBLIC = images(9)
START = network(5)


def local_client(index: int, model: nn.Module) -> federated.LocalClient:
    labels = torch.tensor(LABELS[index])
    return federated.LocalClient(model, [(images(index, len(labels)), labels)], STEP)


def trained(index: int, model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    local_client(index, model).train()
    return model


def averaged(models: list[nn.Module]) -> nn.Module:
    """Mean of the weights by the number of samples."""
    model = copy.deepcopy(models[0])
    sizes = torch.tensor([float(len(labels)) for labels in LABELS])
    mean = (torch.stack([vector(part) for part in models]) * (sizes / 12)[:, None]).sum(0)
    nn.utils.vector_to_parameters(mean, model.parameters())
    return model


def averaging_grid(grid: type[InProcessGrid] = InProcessGrid) -> InProcessGrid:
    def client_of(context: Context) -> federated.LocalClient:
        return local_client(int(context.node_config["partition-id"]), network(0))

    return grid(averaging_app(client_of, NUM_CLASSES), len(LABELS))


def start(strategy: Any, grid: InProcessGrid, rounds: int = 1) -> Tensor:
    result = strategy.start(grid, ArrayRecord(START.state_dict()), num_rounds=rounds)
    model = network(0)
    model.load_state_dict(result.arrays.to_torch_state_dict())
    return vector(model)


def test_clients_of_fedavg() -> None:
    expected = START
    for _ in range(2):
        expected = averaged([trained(index, expected) for index in range(3)])
    weights = start(FedAvg(fraction_evaluate=0.0), averaging_grid(), rounds=2)
    torch.testing.assert_close(weights, vector(expected))


def test_feddf_is_the_average_and_the_fusion() -> None:
    clients = [trained(index, START) for index in range(3)]
    expected = averaged(clients)
    federated.fuse(expected, clients, PUBLIC, training=STEP, batch_size=6, seed=1)
    strategy = FedDF(network(0), PUBLIC, training=STEP, batch_size=6)
    torch.testing.assert_close(start(strategy, averaging_grid()), vector(expected))


def test_fedftg_is_the_average_and_the_fine_tuning() -> None:
    clients = [trained(index, START) for index in range(3)]
    expected = averaged(clients)
    # Flower draws the order of the clients, which changes sums in the last digits only.
    counts = torch.tensor([[3, 1, 0], [0, 2, 4], [1, 0, 1]])
    tunings = [federated.HardSampleFineTuning(TinyGenerator(), NUM_CLASSES) for _ in range(2)]
    tunings[0](expected, clients, counts)
    weights = start(FedFTG(network(0), tunings[1]), averaging_grid())
    torch.testing.assert_close(weights, vector(expected), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(weights, vector(averaged(clients)))


def test_fedmd_with_models_of_different_size() -> None:
    def model_of(index: int) -> nn.Module:
        return network(index, hidden=4 * index)

    def client_of(context: Context) -> federated.LocalClient:
        index = int(context.node_config["partition-id"])
        return local_client(index, model_of(index))

    grid = InProcessGrid(consensus_app(client_of, PUBLIC, NUM_CLASSES, training=STEP), 3)
    result = FedMD().start(grid, ArrayRecord(), num_rounds=2)

    models = [trained(index, model_of(index)) for index in range(3)]
    agreed = torch.stack([model(PUBLIC) for model in models]).mean(0).detach()
    for model in models:
        federated.digest(model, PUBLIC, agreed, training=STEP, seed=2)
    models = [trained(index, model) for index, model in enumerate(models)]
    agreed = torch.stack([model(PUBLIC) for model in models]).mean(0).detach()
    torch.testing.assert_close(result.arrays.to_torch_state_dict()["logits"], agreed)
    for index, model in enumerate(models):
        state = grid.contexts[index + 1].state["model"].to_torch_state_dict()
        torch.testing.assert_close(state, dict(model.state_dict()))


class LastClientFails(InProcessGrid):
    """Grid whose last client replies with an error."""

    def _reply(self, message: Message) -> Message:
        if message.metadata.dst_node_id == len(LABELS):
            return Message(Error(code=0, reason="no power"), reply_to=message)
        return super()._reply(message)


def test_a_client_that_fails_is_left_out() -> None:
    clients = [trained(index, START) for index in range(2)]
    expected = copy.deepcopy(START)
    mean = (4 * vector(clients[0]) + 6 * vector(clients[1])) / 10
    nn.utils.vector_to_parameters(mean, expected.parameters())
    federated.fuse(expected, clients, PUBLIC, training=STEP, batch_size=6, seed=1)
    strategy = FedDF(network(0), PUBLIC, training=STEP, batch_size=6)
    torch.testing.assert_close(start(strategy, averaging_grid(LastClientFails)), vector(expected))


def test_messages_can_be_pushed_and_pulled() -> None:
    grid = averaging_grid()
    record = FedAvg(fraction_evaluate=0.0).configure_train(
        1, ArrayRecord(START.state_dict()), ConfigRecord(), grid
    )
    names = list(grid.push_messages(record))
    assert len(list(grid.pull_messages(names))) == 3
    assert list(grid.pull_messages(names)) == []
