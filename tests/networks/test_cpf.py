"""Student of CPF against a computation node by node."""

from __future__ import annotations

import math

import pytest
import torch

from instil.data.graphs import graph_splits
from instil.networks.cpf import CPF, cpf
from instil.tasks.node_classification import call
from tests.data.test_graphs import arrays


def built() -> CPF:
    torch.manual_seed(0)
    net = cpf(2, 5, 30, width=4)
    assert isinstance(net, CPF)
    torch.nn.init.normal_(net.confidence)
    torch.nn.init.normal_(net.balance)
    return net


def test_outputs_are_the_mixture_of_propagation_and_perceptron() -> None:
    graph = graph_splits(**arrays(), label_prior=True).train
    batch = graph.__getitems__(range(30))
    net = built()
    neighbours = {node: [node] for node in range(30)}
    for source, target in batch["edge_index"].T.tolist():
        neighbours[target].append(source)
    confidence = net.confidence.tolist()
    prior = batch["label_prior"].tolist()
    values = [row if sum(row) else [0.5, 0.5] for row in prior]
    for _ in range(2):
        updated = []
        for node in range(30):
            weights = [math.exp(confidence[other]) for other in neighbours[node]]
            pairs = list(zip(weights, neighbours[node], strict=True))
            mean = [sum(w * values[n][c] for w, n in pairs) / sum(weights) for c in range(2)]
            updated.append(prior[node] if sum(prior[node]) else mean)
        values = updated
    alpha = net.balance.sigmoid()[:, None]
    expected = alpha * torch.tensor(values) + (1 - alpha) * net.perceptron(batch["x"]).softmax(1)
    torch.testing.assert_close(call(net, batch)["logits"].exp(), expected)


def test_outputs_do_not_depend_on_the_batch() -> None:
    graph = graph_splits(**arrays(), label_prior=True).train
    net = built()
    whole = call(net, graph.__getitems__(range(30)))["logits"]
    part = call(net, graph.__getitems__([4, 17, 29]))["logits"]
    torch.testing.assert_close(part[:3], whole[[4, 17, 29]])


def test_only_training_labels_are_in_the_prior() -> None:
    data = graph_splits(**arrays(), label_prior=True)
    prior = data.test.inputs(torch.arange(len(data.test)))["label_prior"]
    assert not prior.any()
    whole = data.train.inputs(torch.arange(30))["label_prior"]
    assert torch.equal(whole.sum(1) > 0, torch.arange(30) % 3 == 0)
    with pytest.raises(ValueError, match="num_labeled: label_prior shows the labels"):
        data.train.keep_labels(torch.arange(3))


def test_data_without_training_labels_are_an_error() -> None:
    batch = graph_splits(**arrays()).train.__getitems__([0])
    with pytest.raises(ValueError, match=r"Set data\.label_prior: true"):
        call(built(), batch)
