from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Outputs
from instil.objectives.features.tinybert import (
    TinyBERT,
    tinybert_attention_loss,
    tinybert_hidden_loss,
)
from instil.testing import sample_outputs

MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])


def test_hidden_states_agree_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 3, 4, dtype=torch.float64),
        torch.randn(3, 3, 4, dtype=torch.float64),
    )
    for n in range(3):
        squares = [
            float((student[n, t, d] - teacher[n, t, d]) ** 2)
            for t in range(3)
            if MASK[n, t]
            for d in range(4)
        ]
        assert np.isclose(
            tinybert_hidden_loss(student, teacher, MASK, "none")[n], np.mean(squares), rtol=1e-12
        )
    assert torch.allclose(
        tinybert_hidden_loss(student, teacher), (student - teacher).square().mean()
    )


def test_attentions_agree_with_a_plain_loop() -> None:
    student, teacher = (
        torch.randn(3, 2, 3, 3, dtype=torch.float64),
        torch.randn(3, 2, 3, 3, dtype=torch.float64),
    )
    for n in range(3):
        real = [t for t in range(3) if MASK[n, t]]
        squares = [
            float((student[n, h, q, k] - teacher[n, h, q, k]) ** 2)
            for h in range(2)
            for q in real
            for k in real
        ]
        assert np.isclose(
            tinybert_attention_loss(student, teacher, MASK, "none")[n], np.mean(squares), rtol=1e-12
        )


def test_scores_of_masked_keys_are_zero() -> None:
    student, teacher = torch.randn(2, 2, 3, 3), torch.randn(2, 2, 3, 3)
    masked = [
        torch.where(MASK[:2, None, None] == 0, side - 10000, side) for side in (student, teacher)
    ]
    zeroed = [torch.where(MASK[:2, None, None] == 0, 0.0, side) for side in (student, teacher)]
    assert torch.allclose(tinybert_attention_loss(*masked), tinybert_attention_loss(*zeroed))


def test_all_layers_and_the_embeddings_share_one_projection() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objective = TinyBERT()
    objective.build(student, teacher)
    assert objective.matched == [(0, 0), (1, 2), (2, 4)]
    assert [name for name, _ in objective.named_parameters()] == [
        "projections.0.weight",
        "projections.0.bias",
    ]
    mask, project = batch["attention_mask"], objective.projections[0]
    expected = torch.zeros(len(mask))
    for i, j in [(0, 0), (1, 2), (2, 4)]:
        expected = expected + tinybert_hidden_loss(
            project(student["hidden_states"][i]), teacher["hidden_states"][j], mask, "none"
        )
    hidden = expected
    for i, j in [(0, 1), (1, 3)]:
        expected = expected + tinybert_attention_loss(
            student["attentions"][i], teacher["attentions"][j], mask, "none"
        )
    assert torch.allclose(objective(student, teacher, batch), expected)
    objective.attention = 0.0
    assert torch.allclose(objective(student, teacher, batch), hidden)


def test_padding_changes_nothing() -> None:
    student, teacher, batch = sample_outputs(task="text_classification")
    objective = TinyBERT()
    objective.build(student, teacher)
    mask = batch["attention_mask"]
    pairs = (mask[:, None, :, None] * mask[:, None, None]) == 0

    def noisy(outputs: Outputs) -> Outputs:
        return {
            "hidden_states": tuple(
                torch.where(mask[..., None] == 0, 1e3, state) for state in outputs["hidden_states"]
            ),
            "attentions": tuple(
                torch.where(pairs, 1e3, attention) for attention in outputs["attentions"]
            ),
        }

    assert torch.equal(
        objective(noisy(student), teacher, batch), objective(student, noisy(teacher), batch)
    )


def test_other_heads_and_missing_attentions_are_errors() -> None:
    student, teacher, _ = sample_outputs(task="text_classification")
    with pytest.raises(
        ValueError, match=r"attentions are \(8, 2, 6, 6\) and \(8, 4, 6, 6\); both sides must have"
    ):
        TinyBERT().build(
            student | {"attentions": tuple(a[:, :2] for a in student["attentions"])}, teacher
        )
    with pytest.raises(
        ValueError, match="the student gives 1 and the teacher 4; expected one for every layer"
    ):
        TinyBERT().build(student | {"attentions": student["attentions"][:1]}, teacher)


@pytest.mark.parametrize(
    ("function", "shape"),
    [(tinybert_hidden_loss, (2, 3, 4)), (tinybert_attention_loss, (2, 4, 3, 3))],
)
def test_compiles_whole(function: object, shape: tuple[int, ...]) -> None:
    student, teacher = torch.randn(shape), torch.randn(shape)
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(student, teacher, MASK[:2]), function(student, teacher, MASK[:2])
    )  # type: ignore[operator]
