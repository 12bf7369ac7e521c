"""Functions of federated distillation, without Flower, against independent formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.integrations import federated
from tests.integrations.federated.networks import (
    NUM_CLASSES,
    STEP,
    TinyGenerator,
    images,
    network,
    sgd_step,
    vector,
)

COUNTS = torch.tensor([[4, 0, 0], [1, 3, 0]])


def test_predictions_are_those_in_eval_mode() -> None:
    model = nn.Sequential(network(0), nn.Dropout(0.5)).train()
    logits = federated.predict(model, images(0), batch_size=4)
    assert torch.equal(logits, network(0)(images(0)))
    assert model.training


def test_the_consensus_is_a_weighted_mean() -> None:
    logits = [torch.randn(4, 3) for _ in range(3)]
    mean = (logits[0] + logits[1] + logits[2]) / 3
    torch.testing.assert_close(federated.consensus(logits), mean)
    weighted = (logits[0] + 3 * logits[2]) / 4
    torch.testing.assert_close(federated.consensus(logits, [1, 0, 3]), weighted)


@pytest.mark.parametrize(
    ("logits", "weights", "message"),
    [
        ([], None, "client_logits: is empty"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], None, "client 1 has shape"),
        ([torch.zeros(2, 3)], [1.0, 2.0], "Expected 1 numbers"),
        ([torch.zeros(2, 3)], [-1.0], "Expected 1 numbers"),
        ([torch.zeros(2, 3)], [0.0], "positive sum"),
    ],
)
def test_wrong_consensus(logits: list[Tensor], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        federated.consensus(logits, weights)


def test_a_client_digests_the_consensus_by_the_absolute_error() -> None:
    image, target = images(0), torch.randn(6, NUM_CLASSES)
    model = network(1)
    expected = sgd_step(model, lambda net: (net(image) - target).abs().mean())
    federated.digest(model, image, target, training=STEP, batch_size=6)
    torch.testing.assert_close(vector(model), vector(expected))
    assert not model.training
    with pytest.raises(ValueError, match="wrong number of rows"):
        federated.digest(model, image, target[:5])
    with pytest.raises(ValueError, match="images: is empty"):
        federated.digest(model, image[:0], target[:0])


def test_the_server_learns_the_mean_logits_of_the_clients() -> None:
    image = images(0)
    student = network(0)
    clients = [network(1), network(2, hidden=5)]
    before = [vector(client) for client in clients]
    with torch.no_grad():
        target = ((clients[0](image) + clients[1](image)) / 2).softmax(-1)

    def loss(net: nn.Module) -> Tensor:
        return F.kl_div(net(image).log_softmax(-1), target, reduction="batchmean")

    expected = sgd_step(student, loss)
    federated.fuse(student, clients, image, training=STEP, batch_size=6)
    torch.testing.assert_close(vector(student), vector(expected))
    for client, weights in zip(clients, before, strict=True):
        assert torch.equal(vector(client), weights)
    with pytest.raises(ValueError, match="clients: is empty"):
        federated.fuse(student, [], image)


def test_a_client_trains_on_its_labels() -> None:
    image = images(0)
    label = torch.tensor([0, 0, 2, 2, 2, -100])
    model = network(3)
    # The loss is divided by all images of the batch, as in the objective ``cross_entropy``.
    expected = sgd_step(
        model, lambda net: F.cross_entropy(net(image[:5]), label[:5], reduction="sum") / 6
    )
    client = federated.LocalClient(model, [(image, label)], STEP)
    client.train()
    torch.testing.assert_close(vector(model), vector(expected))
    assert client.label_counts(NUM_CLASSES).tolist() == [2, 0, 3]
    with pytest.raises(ValueError, match="num_classes: the labels are not classes"):
        client.label_counts(2)
    with pytest.raises(ValueError, match="KD needs logits of the teacher"):
        federated.LocalClient(model, [(image, label)], STEP, "kd").train()


def test_labels_and_weights_follow_the_counts() -> None:
    torch.testing.assert_close(
        federated.label_distribution(COUNTS), torch.tensor([5 / 8, 3 / 8, 0.0])
    )
    expected = torch.tensor([[0.8, 0.0, 0.0], [0.2, 1.0, 0.0]])
    torch.testing.assert_close(federated.class_shares(COUNTS), expected)
    for wrong in (torch.zeros(2, 3), -COUNTS, torch.ones(3)):
        with pytest.raises(ValueError, match="counts: wrong values"):
            federated.class_shares(wrong)


def test_the_losses_are_those_of_the_paper() -> None:
    student, clients = torch.randn(4, 3), torch.randn(2, 4, 3)
    shares, labels = torch.rand(2, 4), torch.tensor([0, 2, 1, 1])
    discrepancy, entropy = torch.zeros(4), torch.zeros(4)
    for client in range(2):
        for item in range(4):
            p, q = clients[client, item].softmax(-1), student[item].softmax(-1)
            discrepancy[item] += shares[client, item] * (p * (p / q).log()).sum()
            entropy[item] -= shares[client, item] * p[labels[item]].log()
    torch.testing.assert_close(federated.model_discrepancy(student, clients, shares), discrepancy)
    torch.testing.assert_close(federated.client_cross_entropy(clients, labels, shares), entropy)
    image, noise = torch.rand(4, 1, 2, 2), torch.randn(4, 3)
    total = 0.0
    for i in range(4):
        for j in range(4):
            image_distance = (image[i] - image[j]).abs().mean()
            total += float(image_distance * (noise[i] - noise[j]).square().mean())
    expected = torch.tensor(math.exp(-total / 16))
    torch.testing.assert_close(federated.diversity_loss(image, noise), expected)


def test_generator_and_global_model_are_adversaries() -> None:
    """One round against the min-max problem of the paper, written out."""
    generator, student = TinyGenerator(), network(0)
    clients = [network(1), network(2)]
    before = copy.deepcopy(generator), copy.deepcopy(student)
    weights = {"classification_weight": 0.7, "diversity_weight": 0.3}
    sizes = {"iterations": 1, "student_steps": 1, "batch_size": 5}
    tuning = federated.HardSampleFineTuning(
        generator, NUM_CLASSES, student_lr=0.5, generator_lr=0.01, seed=3, **sizes, **weights
    )
    tuning(student, clients, COUNTS)
    assert all(parameter.grad is None for parameter in clients[0].parameters())

    random = torch.Generator().manual_seed(3)
    labels = torch.tensor([5 / 8, 3 / 8, 0.0]).multinomial(5, True, generator=random)
    noise = torch.randn(5, 2, generator=random)
    code = torch.cat([noise, torch.eye(3)[labels]], 1)
    share = torch.tensor([[0.8, 0.0, 0.0], [0.2, 1.0, 0.0]])[:, labels]

    def discrepancy(model: nn.Module, image: Tensor) -> Tensor:
        q = model(image).log_softmax(-1)
        parts = []
        for client, weight in zip(clients, share, strict=True):
            p = client(image).log_softmax(-1)
            parts.append((weight * (p.exp() * (p - q)).sum(-1)).mean())
        return torch.stack(parts).sum()

    def generator_loss(net: nn.Module) -> Tensor:
        image = net(code)
        entropies = [
            (weight * F.cross_entropy(client(image), labels, reduction="none")).mean()
            for client, weight in zip(clients, share, strict=True)
        ]
        similar = federated.diversity_loss(image, noise)
        return -discrepancy(before[1], image) + 0.7 * sum(entropies) + 0.3 * similar

    expected_generator = copy.deepcopy(before[0])
    adam = torch.optim.Adam(expected_generator.parameters(), lr=0.01)
    generator_loss(expected_generator).backward()
    adam.step()
    torch.testing.assert_close(vector(generator), vector(expected_generator))
    hard = expected_generator(code).detach()
    expected = sgd_step(before[1], lambda net: discrepancy(net, hard))
    torch.testing.assert_close(vector(student), vector(expected))
    assert torch.equal(vector(clients[0]), vector(network(1)))


def test_wrong_generator_and_counts() -> None:
    with pytest.raises(ValueError, match="'latent' above 5, the number of classes, got 5"):
        federated.HardSampleFineTuning(TinyGenerator(), 5)
    tuning = federated.HardSampleFineTuning(TinyGenerator(), NUM_CLASSES)
    with pytest.raises(ValueError, match=r"counts: wrong shape. Expected \(1, 3\)"):
        tuning(network(0), [network(1)], COUNTS)
