from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Outputs
from instil.objectives.features.mobilebert import (
    MobileBERT,
    mobilebert_attention_loss,
    mobilebert_feature_loss,
)
from instil.testing import sample_outputs

MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


def test_feature_maps_agree_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(2, 3, 5, dtype=torch.float64),
        torch.randn(2, 3, 5, dtype=torch.float64),
    )
    for n in range(2):
        values = []
        for t in range(3):
            if MASK[n, t]:
                (a, b) = (side[n, t].numpy() for side in (student, teacher))
                (mean_a, mean_b), (var_a, var_b) = (
                    (a.sum() / 5, b.sum() / 5),
                    (((a - a.mean()) ** 2).sum() / 5, ((b - b.mean()) ** 2).sum() / 5),
                )
                normed = [
                    ((a[d] - mean_a) / np.sqrt(var_a) - (b[d] - mean_b) / np.sqrt(var_b)) ** 2
                    for d in range(5)
                ]
                values.append(
                    2 * np.mean(normed) + 3 * (mean_a - mean_b) ** 2 + 7 * abs(var_a - var_b)
                )
        assert np.isclose(
            mobilebert_feature_loss(student, teacher, 2.0, 3.0, 7.0, MASK, "none")[n],
            np.mean(values),
            rtol=1e-9,
        )


def test_attentions_agree_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(2, 2, 3, 3, dtype=torch.float64).softmax(-1),
        torch.randn(2, 2, 3, 3, dtype=torch.float64).softmax(-1),
    )
    for n in range(2):
        real = [t for t in range(3) if MASK[n, t]]
        divergences = [
            sum(
                float(p * np.log(p / q))
                for p, q in zip(
                    teacher[n, head, t].numpy(), student[n, head, t].numpy(), strict=True
                )
            )
            for head in range(2)
            for t in real
        ]
        assert np.isclose(
            mobilebert_attention_loss(student, teacher, MASK, "none")[n],
            np.mean(divergences),
            rtol=1e-12,
        )


def test_probabilities_of_zero_are_finite() -> None:
    student = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]], requires_grad=True)
    loss = mobilebert_attention_loss(student, torch.tensor([[[[0.5, 0.5], [1.0, 0.0]]]]))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_is_the_mean_over_the_layers() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    teacher = teacher | {
        "hidden_states": tuple(state[..., :48] for state in teacher["hidden_states"])
    }
    objective = MobileBERT(1.0, 0.5, 0.25, 2.0)
    objective.build(student, teacher)
    mask, expected = batch["attention_mask"], torch.zeros(8)
    for i, j in [(1, 2), (2, 4)]:
        expected += (
            mobilebert_feature_loss(
                student["hidden_states"][i],
                teacher["hidden_states"][j],
                1.0,
                0.5,
                0.25,
                mask,
                "none",
            )
            / 2
        )
        expected += mobilebert_attention_loss(
            student["attentions"][i - 1], teacher["attentions"][j - 1], mask, "none"
        )
    assert torch.allclose(objective(student, teacher, batch), expected)


def test_padding_changes_nothing() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objective = MobileBERT()
    objective.build(student, teacher)
    padded = batch["attention_mask"] == 0

    def noisy(outputs: Outputs) -> Outputs:
        return {
            "hidden_states": tuple(
                torch.where(padded[..., None], 1e3, state) for state in outputs["hidden_states"]
            ),
            "attentions": tuple(
                torch.where(padded[:, None, :, None], 0.5, attention)
                for attention in outputs["attentions"]
            ),
        }

    assert torch.equal(
        objective(noisy(student), noisy(teacher), batch), objective(student, teacher, batch)
    )


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_any_scale_is_finite(scale: float) -> None:
    student = (torch.randn(2, 3, 5) * scale).requires_grad_()
    loss = mobilebert_feature_loss(student, torch.randn(2, 3, 5))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_compiles_without_graph_breaks() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    compiled = torch.compile(mobilebert_feature_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, mask=MASK), mobilebert_feature_loss(student, teacher, mask=MASK)
    )
    one, other = torch.rand(2, 2, 3, 3), torch.rand(2, 2, 3, 3)
    compiled = torch.compile(mobilebert_attention_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(one, other, MASK), mobilebert_attention_loss(one, other, MASK))
