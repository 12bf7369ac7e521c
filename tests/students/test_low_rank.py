"""Head of low rank: the best approximation on the data, and its use in the task."""

from __future__ import annotations

import copy

import pytest
import torch

from instil.networks.cnn import cnn
from instil.students.low_rank import low_rank
from instil.tasks.language import call
from tests.students.nets import IDS, llama, logits, observe


def test_the_task_asks_it_as_the_model_does_itself() -> None:
    student = low_rank(llama(), 4, observe)
    with torch.no_grad():
        torch.testing.assert_close(call(student, IDS)["logits"], student(**IDS).logits)
    assert call(student, IDS)["projection"].weight.shape == (23, 4)
    assert student.get_input_embeddings().weight.shape == (23, 16)


def test_of_states_in_a_plane_nothing_is_lost() -> None:
    model = llama()
    model.model.norm.weight.data[4:] = 0
    torch.testing.assert_close(
        logits(low_rank(copy.deepcopy(model), 4, observe)), logits(model), rtol=1e-3, atol=1e-3
    )


def test_it_is_nearer_than_the_plain_decomposition() -> None:
    model = llama()
    errors = [
        (logits(low_rank(copy.deepcopy(model), 5, seen)) - logits(model)).square().sum()
        for seen in (observe, None)
    ]
    weight = model.lm_head.weight.detach()
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    plain = (u[:, :5] * s[:5]) @ v[:5]
    with torch.no_grad():
        expected = (call(model, IDS)["projection"].hidden @ (plain - weight).T).square().sum()
    torch.testing.assert_close(errors[1], expected, rtol=1e-3, atol=1e-3)
    assert errors[0] < 0.9 * errors[1]


def test_gradients_reach_both_factors_and_what_saves_nothing_is_refused() -> None:
    student = low_rank(llama(), 4)
    call(student, IDS)["logits"].square().sum().backward()
    assert student.lm_head.down.weight.grad is not None
    assert student.lm_head.weight.grad is not None
    with pytest.raises(ValueError, match="becomes smaller only with a rank below 9"):
        low_rank(llama(), 10)
    with pytest.raises(ValueError, match="has no head over tokens"):
        low_rank(cnn(10, 1), 2)
