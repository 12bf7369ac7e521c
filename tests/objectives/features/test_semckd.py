from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objective
from instil.objectives.features.semckd import SemCKD, semckd_attention, semckd_loss
from instil.testing import check_objective


def test_loss_and_attention_agree_with_plain_loops() -> None:
    query, key, distance = (
        torch.randn(shape, dtype=torch.float64) for shape in ((3, 2, 5), (3, 4, 5), (3, 2, 4))
    )
    allowed = torch.tensor([[True, True, False, True], [True, True, True, True]])
    attention = semckd_attention(query, key, allowed, 0.7)
    expected = []
    for n in range(3):
        total = 0.0
        for i in range(2):
            energy = [
                np.exp(float(query[n, i] @ key[n, j]) / 0.7) if allowed[i, j] else 0.0
                for j in range(4)
            ]
            assert np.allclose(attention[n, i], np.array(energy) / sum(energy), rtol=1e-12)
            total += (
                sum(e / sum(energy) * float(distance[n, i, j]) for j, e in enumerate(energy)) / 2
            )
        expected.append(total)
    assert np.allclose(semckd_loss(distance, attention, "none"), expected, rtol=1e-12)
    assert np.isclose(float(semckd_loss(distance, attention)), np.mean(expected))


def test_attention_weights_all_pairs_of_levels(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("wide cnn", seed=1)
    objective = SemCKD()
    objective.build(student, teacher)
    assert objective.matched == [(i, j) for i in range(3) for j in range(4)]
    assert len(objective.plan) == 12
    weighted = objective(student, teacher, {})
    terms = [
        objective.loss(student["features"][i], teacher["features"][j], a)
        for (i, j), a in zip(objective.matched, objective.adapters, strict=True)
    ]
    assert not torch.allclose(weighted, torch.stack(terms).mean(0))
    for values in objective.keys.parameters():
        values.data.zero_()
    assert torch.allclose(objective(student, teacher, {}), torch.stack(terms).mean(0))  # equal keys


def test_pairs_limit_the_attention(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    student, teacher = features("cnn"), features("wide cnn", seed=1)
    objective = SemCKD(pairs=[[2, 3], [1, 1]])
    objective.build(student, teacher)
    changed = {
        "features": tuple(t * (10 if j in (0, 2) else 1) for j, t in enumerate(teacher["features"]))
    }
    assert torch.equal(objective(student, teacher, {}), objective(student, changed, {}))
    terms = [
        objective.loss(student["features"][i], teacher["features"][j], a)
        for (i, j), a in zip(objective.matched, objective.adapters, strict=True)
    ]
    assert torch.allclose(objective(student, teacher, {}), torch.stack(terms).mean(0))


def test_similarities_within_a_batch_accept_up_to_the_samples_of_the_first_batch(
    features: Callable[..., dict[str, tuple[Tensor, ...]]],
) -> None:
    objective = SemCKD("batch", factor=2)
    objective.build(features("cnn", 6), features("cnn", 6, seed=1))
    assert objective.queries["0"].first.in_features == 6
    assert objective.queries["0"].second.out_features == 3
    assert objective(features("cnn", 4), features("cnn", 4, seed=1), {}).ndim == 0
    with pytest.raises(
        ValueError, match=r"attention: 'batch' .* Expected 6 samples or fewer, got 7"
    ):
        objective(features("cnn", 7), features("cnn", 7, seed=1), {})


def test_unknown_options_are_errors() -> None:
    with pytest.raises(
        ValueError, match=r"attention: unknown value.*got 'bach'. Did you mean batch"
    ):
        SemCKD("bach")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'bach'\. Did you mean batch"):
        SemCKD(norm="bach")  # type: ignore[arg-type]


def test_any_two_nets(check_pair: Callable[[Objective], None]) -> None:
    check_pair(SemCKD())


def test_contracts() -> None:
    check_objective(lambda: SemCKD(pairs=[[0, 1], [2, 1], [2, 2]]))


def test_compiles_whole() -> None:
    query, key, distance = torch.randn(3, 2, 5), torch.randn(3, 4, 5), torch.rand(3, 2, 4)

    def loss(query: Tensor, key: Tensor, distance: Tensor) -> Tensor:
        return semckd_loss(
            distance, semckd_attention(query, key, torch.ones(2, 4, dtype=torch.bool))
        )

    assert torch.allclose(
        torch.compile(loss, fullgraph=True, backend="eager")(query, key, distance),
        loss(query, key, distance),
    )
