"""Cold Brew: estimated embeddings, the bank of the student and its latent neighbours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from instil.core import Net
from instil.networks.latent_neighbours import LatentNeighbours
from instil.networks.structural_gcn import StructuralGCN
from instil.objectives.logits.kd import KD
from instil.schemes.offline.cold_brew import ColdBrew
from instil.tasks.node_classification import call
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.graph_nets import nodes, student, teacher, timed


def net(embedding: int = 8, neighbours: int = 3) -> LatentNeighbours:
    torch.manual_seed(0)
    return LatentNeighbours(3, 4, 24, 8, embedding, neighbours)


def teacher_net() -> Net:
    one = teacher()
    assert isinstance(one, Net)
    return Net(one.model, call, {"embedding": "head:in"})


def make(embedding: int = 8) -> ColdBrew:
    return ColdBrew(Net(net(embedding), call), Frozen(teacher_net()), {"kd": KD(1.0)})


def test_contracts() -> None:
    check_scheme(make, nodes)


def test_a_step_fits_the_estimate_and_fills_the_bank_of_the_student() -> None:
    scheme, batch = make(), nodes(0, edges=True)
    batch["valid"] = batch["index"] < 20
    scheme.prepare(batch)
    update = next(iter(scheme.step(timed(batch))))
    embedding = scheme.teacher_outputs(batch)["embedding"]
    estimate = scheme.student(batch)["structure"]
    expected = (estimate - embedding)[:20].square().mean()
    torch.testing.assert_close(update.losses["structure"], expected)
    scheme.after_step(update.state_updates)
    model = scheme.student.model
    assert isinstance(model, LatentNeighbours)
    torch.testing.assert_close(model.bank[:20], embedding[:20])
    assert model.is_known.tolist() == [1] * 20 + [0] * 4


def test_latent_neighbours_are_the_most_similar_nodes_of_the_bank() -> None:
    model = net(embedding=2, neighbours=2)
    estimate = torch.tensor([[1.0, 0.5]])
    assert not model.latent(estimate).any(), "an empty bank"
    bank = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    model.remember(torch.tensor([4, 9, 20]), bank)
    weight = torch.tensor([3.0, 3.0]).softmax(0)
    expected = weight[0] * bank[0] + weight[1] * bank[2]
    torch.testing.assert_close(model.latent(estimate)[0], expected)
    one = net(embedding=2, neighbours=2)
    one.remember(torch.tensor([4]), bank[:1])
    torch.testing.assert_close(one.latent(estimate), bank[:1])


def test_logits_have_no_gradient_for_the_estimate() -> None:
    model = net()
    model.remember(torch.arange(24), torch.randn(24, 8))
    model(torch.randn(5, 4))["logits"].sum().backward()
    assert all(parameter.grad is None for parameter in model.estimator.parameters())
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())


def test_the_teacher_adds_a_vector_of_each_node_before_the_mean() -> None:
    torch.manual_seed(0)
    model = StructuralGCN(3, 4, 24, 8, 1, 0.0)
    assert not any(table.weight.any() for table in model.structure)
    nn.init.normal_(model.structure[0].weight)
    x, edges, index = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]), torch.tensor([5, 2, 7])
    linear: Tensor = model.linear[0](x) + model.structure[0].weight[index]
    rows = [linear[0], (linear[0] + linear[1]) / 2, (linear[1] + linear[2]) / 2]
    expected = model.head(torch.stack(rows).relu())
    torch.testing.assert_close(model(x, edges, index), expected)


def test_wrong_networks_are_errors() -> None:
    with pytest.raises(ValueError, match=r"Use the model latent_neighbours"):
        ColdBrew(student(), Frozen(teacher_net()), {"kd": KD(1.0)}).prepare(nodes(0))
    with pytest.raises(ValueError, match=r"student\.options\.embedding: 6 .* Expected 8"):
        make(6).prepare(nodes(0))
    with pytest.raises(ValueError, match=r"teacher\.taps: cold_brew reads the embedding"):
        ColdBrew(Net(net(), call), Frozen(teacher()), {"kd": KD(1.0)}).prepare(nodes(0))
    with pytest.raises(ValueError, match="teacher: cold_brew needs a teacher"):
        ColdBrew(Net(net(), call), None, {"kd": KD(1.0)}).prepare(nodes(0))
