from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from instil.core import Objective
from instil.objectives.features.factor_transfer import (
    FactorNets,
    FactorTransfer,
    factor_transfer_loss,
)

Features = Callable[..., dict[str, tuple[Tensor, ...]]]


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("form", ["paper", "attention"])
def test_is_the_distance_of_factors_of_unit_length(form: str, distance: str) -> None:
    student, teacher = torch.randn(2, 3, 2, 4).double(), torch.randn(2, 3, 2, 4).double()
    for n, ours in enumerate(
        factor_transfer_loss(student, teacher, form, distance, reduction="none")
    ):  # type: ignore[arg-type]
        units = []
        for stage in (student[n].numpy(), teacher[n].numpy()):
            factor = stage.flatten() if form == "paper" else (stage**2).mean(0).flatten()
            units.append(factor / np.sqrt((factor**2).sum()))
        differences = np.abs(units[0] - units[1])
        length = {"paper": np.sqrt((differences**2).sum()), "attention": (differences**2).mean()}
        expected = differences.mean() if distance == "l1" else length[form]
        assert float(ours) == pytest.approx(float(expected))


def test_the_strength_of_a_sample_does_not_matter() -> None:
    student = torch.randn(2, 3, 4, 4)
    assert float(factor_transfer_loss(3 * student, student)) == pytest.approx(0, abs=1e-7)


def test_the_paraphraser_learns_from_its_reconstruction_and_the_translator_from_the_transfer(
    features: Features,
) -> None:
    student, teacher = features("cnn"), features("cnn", seed=1)
    for reconstruction in (0.0, 1.0):
        objective = FactorTransfer(reconstruction=reconstruction, pairs=[[1, 1]])
        objective.build(student, teacher)
        nets = objective.adapters[0]
        assert isinstance(nets, FactorNets)
        objective(student, teacher, {}).sum().backward()
        reached = [
            sum(float(p.grad.abs().sum()) for p in part.parameters())
            for part in (nets.translator, nets.paraphraser, nets.decoder)
        ]
        assert reached[0] > 0
        assert [value > 0 for value in reached[1:]] == [reconstruction > 0] * 2
        factor, _, _ = nets(student["features"][1], teacher["features"][1])
        assert factor.shape[1] == 3


def test_the_paraphraser_learns_to_reconstruct_the_teacher(features: Features) -> None:
    teacher = features("cnn", seed=1)
    objective = FactorTransfer(rate=1.0, pairs=[[2, 2]])
    objective.build(features("cnn"), teacher)
    nets, stage = objective.adapters[0], teacher["features"][2]
    assert isinstance(nets, FactorNets)
    optimizer = torch.optim.Adam(nets.parameters(), 0.01)
    errors = []
    for _ in range(60):
        optimizer.zero_grad()
        objective(features("cnn"), teacher, {}).mean().backward()
        optimizer.step()
        errors.append(
            float((nets.decoder(nets.paraphraser(stage)) - stage).detach().square().mean())
        )
    assert errors[-1] < errors[0] / 2


def test_batch_norm_is_in_the_translator_alone() -> None:
    nets = FactorNets(4, 6, 0.5, "batch")
    counts = [
        sum(isinstance(m, nn.BatchNorm2d) for m in part.modules())
        for part in (nets.translator, nets.paraphraser, nets.decoder)
    ]
    assert counts == [3, 0, 0]
    assert FactorTransfer(norm="batch").couples


def test_invalid_inputs_are_errors() -> None:
    with pytest.raises(ValueError, match="factor_transfer_loss: the student's shape"):
        factor_transfer_loss(torch.zeros(2, 3, 1, 1), torch.zeros(2, 3, 2, 2))
    for options, message in (
        ({"form": "papers"}, "got 'papers'. Did you mean paper"),
        ({"distance": "l3"}, "distance: unknown value"),
    ):
        with pytest.raises(ValueError, match=message):
            factor_transfer_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2), **options)


def test_any_pair_of_networks(check_pair: Callable[[Objective], None]) -> None:
    check_pair(FactorTransfer())


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    compiled = torch.compile(factor_transfer_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), factor_transfer_loss(student, teacher))
