"""BINGO: InfoNCE with the sample's own teacher embedding and with its bag."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from instil.objectives.relations.bingo import BINGO, bingo_loss, nearest_rows


def unit(values: torch.Tensor) -> np.ndarray:
    array = values.detach().double().numpy()
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def test_agrees_with_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(3, 4, generator=generator).double()
    teacher = torch.randn(3, 4, generator=generator).double()
    queue = torch.from_numpy(unit(torch.randn(6, 4, generator=generator)))
    bag = torch.zeros(3, 6, dtype=torch.bool)
    bag[0, [1, 4]] = bag[1, 2] = True
    excluded = torch.zeros_like(bag)
    excluded[0, 0] = True
    s, t, q = unit(student), unit(teacher), queue.numpy()
    expected = []
    for n in range(3):
        negatives = sum(
            math.exp(s[n] @ q[k] / 0.3) for k in range(6) if not (bag[n, k] or excluded[n, k])
        )
        terms = []
        for positive in [t[n], *q[bag[n].numpy()]]:
            power = math.exp(s[n] @ positive / 0.3)
            terms.append(-math.log(power / (power + negatives)))
        of_bag = sum(terms[1:]) / max(1, len(terms) - 1)
        expected.append(terms[0] + 0.5 * of_bag)
    values = bingo_loss(student, teacher, queue, bag, excluded, 0.3, 0.5, "none")
    assert np.allclose(values, expected)


def test_the_bag_is_the_nearest_candidates() -> None:
    queue = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    candidates = torch.tensor([[True, True, True], [False, True, True], [False, False, True]])
    teacher = torch.tensor([[3.0, 0.1]] * 3)
    assert nearest_rows(teacher, queue, candidates, 2).tolist() == [
        [True, True, False],
        [False, True, True],
        [False, False, True],
    ]


def test_earlier_views_of_a_sample_are_neither_neighbours_nor_negatives() -> None:
    objective = BINGO(bag=1, size=4, layers=1)
    outputs = {"embedding": torch.randn(2, 3)}, {"embedding": torch.randn(2, 3)}
    objective.build(*outputs)
    first = {"index": torch.tensor([5, 8])}
    # Nothing is stored yet: the bags are empty and the random rows are negatives.
    predicted, teacher = objective.embed(*outputs)
    none = torch.zeros(2, 4, dtype=torch.bool)
    anchors = objective.queue["teacher"]
    torch.testing.assert_close(
        objective(*outputs, first),
        bingo_loss(predicted, teacher, anchors, none, none, reduction="none"),
    )
    objective.after_step(objective.state_updates(*outputs, first))
    assert objective.queue.owner.tolist() == [5, 8, -1, -1]
    own = torch.tensor([[True, False, False, False], [False, True, False, False]])
    other = torch.tensor([[False, True, False, False], [True, False, False, False]])
    torch.testing.assert_close(
        objective(*outputs, first),
        bingo_loss(predicted, teacher, objective.queue["teacher"], other, own, reduction="none"),
    )
    objective.after_step({})


def test_the_index_is_needed() -> None:
    objective = BINGO(size=4)
    outputs = {"embedding": torch.randn(2, 3)}, {"embedding": torch.randn(2, 3)}
    objective.build(*outputs)
    with pytest.raises(ValueError, match="BINGO needs 'index' in the batch"):
        objective(*outputs, {"image": torch.zeros(2)})
