"""KRD: reliability by entropy, sampled neighbours and the fitted power."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.functional.keyed_random import keyed_normal
from instil.functional.reliability import (
    agreement_by_bin,
    entropy_change,
    fit_power,
    sampling_probability,
)
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.schemes.offline.krd import KRD
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.schemes.graph_nets import nodes, student, teacher, timed


def make(**options: Any) -> KRD:
    return KRD(student(), Frozen(teacher()), {"ce": CrossEntropy()}, **options)


def test_contracts() -> None:
    check_scheme(make, nodes)


def test_the_loss_is_the_mean_over_nodes_and_their_neighbours_in_the_warmup() -> None:
    scheme, batch = make(weight=2.0, temperature=0.5), nodes(0, edges=True)
    scheme.prepare(batch)
    batch = scheme.before_step(timed(batch, 0.0))
    update = next(iter(scheme.step(batch)))
    log_student = (scheme.student(batch)["logits"] / 0.5).log_softmax(1)
    log_teacher = (scheme.teacher_outputs(batch)["logits"] / 0.5).log_softmax(1)
    pairs = [(node, node) for node in range(24)]
    pairs += [tuple(edge) for edge in batch["edge_index"].T.tolist()]
    terms = []
    for source, target in pairs:
        difference = log_teacher[source] - log_student[target]
        terms.append((log_teacher[source].exp() * difference).sum())
    torch.testing.assert_close(update.losses["krd"], 2 * torch.stack(terms).mean())
    assert scheme.counts(batch)["krd"] == len(pairs)


def test_neighbours_are_sampled_by_the_reliability_of_the_teacher() -> None:
    scheme, batch = make(noise=0.5), timed(nodes(0, edges=True))
    scheme.prepare(batch)
    noise = keyed_normal({"index": batch["index"], "seed": 0}, 4, "scheme.krd_noise")
    logits = [
        scheme.teacher_outputs(batch | {"x": x})["logits"]
        for x in (batch["x"] + 0.5 * noise, batch["x"])
    ]
    entropies = [-(z.softmax(1) * z.log_softmax(1)).sum(1) for z in logits]
    change = (entropies[0] - entropies[1]).abs()
    prepared = scheme.before_step(batch)
    torch.testing.assert_close(prepared["entropy_change"], change)
    scheme.after_step({"krd": torch.stack([change, torch.ones(24)], 1)})
    assert scheme.largest_change == change.max()
    drawn = torch.zeros(24)
    for step in range(400):
        clock = {"step": torch.tensor(step)}
        drawn += scheme.before_step(batch | clock)["sampled"]
    expected = 1 - change / change.max()
    assert (drawn / 400 - expected).abs().max() < 0.1
    assert not drawn[change.argmax()], "the least reliable node is never a target"


def test_edges_of_nodes_that_do_not_count_are_not_sampled() -> None:
    scheme, batch = make(), nodes(0, edges=True)
    scheme.prepare(batch)
    batch["valid"] = batch["index"] < 20
    sampled = scheme.before_step(timed(batch, 0.0))["sampled"]
    assert sampled.tolist() == [index < 19 for index in range(24)]


def test_the_power_follows_the_agreement_with_momentum() -> None:
    scheme = make(momentum=0.5, bins=10)
    scheme.prepare(nodes(0))
    generator = torch.Generator().manual_seed(0)
    change = torch.rand(20_000, generator=generator)
    change[0] = 1.0
    draw = torch.rand(20_000, generator=generator)
    agrees = (draw < 1 - change**3).float()
    scheme.after_step({"krd": torch.stack([change, agrees], 1)})
    fitted = 2 * float(scheme.power) - 1
    assert 2.4 < fitted < 3.6


def test_functions_at_their_ends() -> None:
    assert entropy_change(torch.zeros(1, 4), torch.zeros(1, 4)) == 0
    probability = sampling_probability(torch.ones(1), torch.tensor(0.0), torch.tensor(1.0))
    assert probability == 0, "without a known scale no neighbour is a target"
    centres, share = agreement_by_bin(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 4)
    assert centres.tolist() == [0.125, 0.875]
    assert share.tolist() == [1.0, 0.0]
    assert 0.9 < fit_power(torch.linspace(0.1, 0.9, 9), 1 - torch.linspace(0.1, 0.9, 9)) < 1.1


def test_a_scheme_without_teacher_or_edges_is_an_error() -> None:
    with pytest.raises(ValueError, match="teacher: krd needs a teacher"):
        KRD(student(), None, {"ce": CrossEntropy()}).prepare(nodes(0))
    fixed = Net(nn.Identity(), lambda _, batch: {"logits": torch.eye(3)[batch["index"] % 3]})
    with pytest.raises(ValueError, match="Leave precompute and store out"):
        KRD(student(), Frozen(fixed), {"ce": CrossEntropy()}).prepare(nodes(0))
    batch = nodes(0)
    del batch["edge_index"]
    with pytest.raises(ValueError, match="needs 'edge_index'"):
        make().prepare(batch)
