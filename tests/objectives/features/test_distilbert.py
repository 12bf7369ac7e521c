from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Objectives, Outputs
from instil.objectives.features.distilbert import DistilBERT, distilbert_loss
from instil.testing import sample_outputs


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / np.sqrt((a @ a) * (b @ b)))


def test_is_the_mean_over_all_tokens_of_the_batch() -> None:
    student, teacher = (
        torch.randn(2, 3, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, dtype=torch.float64),
    )
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]])
    distances = [
        cosine_distance(student[n, t].numpy(), teacher[n, t].numpy())
        for n in range(2)
        for t in range(3)
        if mask[n, t]
    ]
    assert np.isclose(distilbert_loss(student, teacher, mask), np.mean(distances), rtol=1e-12)
    per_sample = distilbert_loss(student, teacher, mask, "none")
    assert np.allclose(per_sample, [distances[0], np.mean(distances[1:])], rtol=1e-12)


def test_the_objective_gives_that_mean_with_and_without_a_mask() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objectives = Objectives({"it": DistilBERT([[2, 4]])})
    teacher = teacher | {
        "hidden_states": tuple(state[..., :48] for state in teacher["hidden_states"])
    }
    objectives.build(student, teacher)
    student_states, teacher_states = student["hidden_states"][2], teacher["hidden_states"][4]
    mask = batch["attention_mask"]
    assert torch.allclose(
        objectives(student, teacher, batch).losses["it"],
        distilbert_loss(student_states, teacher_states, mask),
    )
    assert objectives.counts(batch)["it"] == mask.sum()
    del batch["attention_mask"]
    assert torch.allclose(
        objectives(student, teacher, batch).losses["it"],
        distilbert_loss(student_states, teacher_states),
    )
    valid = mask.bool() & (torch.arange(mask.shape[1]) > 0)
    assert torch.allclose(
        objectives(student, teacher, batch | {"valid": valid}).losses["it"],
        distilbert_loss(student_states, teacher_states, valid),
    )


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e4])
def test_any_length_is_finite(scale: float) -> None:
    student = (torch.ones(1, 2, 3) * scale).requires_grad_()
    loss = distilbert_loss(student, torch.randn(1, 2, 3))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_padding_changes_nothing() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objectives = Objectives({"it": DistilBERT()})
    objectives.build(student, teacher)
    padded = batch["attention_mask"][..., None] == 0

    def noisy(outputs: Outputs) -> Outputs:
        return {
            "hidden_states": tuple(
                torch.where(padded, 100.0, state) for state in outputs["hidden_states"]
            )
        }

    assert torch.equal(
        objectives(noisy(student), noisy(teacher), batch).losses["it"],
        objectives(student, teacher, batch).losses["it"],
    )


def test_compiles_without_graph_breaks() -> None:
    student, teacher, mask = (
        torch.randn(2, 3, 4),
        torch.randn(2, 3, 4),
        torch.tensor([[1, 1, 0], [1, 1, 1]]),
    )
    compiled = torch.compile(distilbert_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher, mask), distilbert_loss(student, teacher, mask))
