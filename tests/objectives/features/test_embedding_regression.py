"""Embedding regression of both texts of a pair against the formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.objectives.features.embedding_regression import (
    Distance,
    EmbeddingRegression,
    embedding_regression_loss,
)
from instil.testing import sample_outputs


def test_equals_the_formula() -> None:
    student, teacher = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    squared = [
        sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 6
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        embedding_regression_loss(student, teacher, reduction="none"),
        torch.tensor(squared).double(),
    )
    cosine = 1 - (student * teacher).sum(1) / student.norm(dim=1) / teacher.norm(dim=1)
    torch.testing.assert_close(embedding_regression_loss(student, teacher, "cosine"), cosine.mean())


def test_both_texts_have_equal_weight_and_share_one_projection() -> None:
    student, teacher, batch = sample_outputs(task="sentence_embedding")
    objective = EmbeddingRegression()
    objective.build(student, teacher)
    assert isinstance(objective.projection, nn.Linear)
    roles = ("sentence_embedding", "partner_embedding")
    parts = [
        embedding_regression_loss(
            objective.projection(student[role]), teacher[role], reduction="none"
        )
        for role in roles
    ]
    torch.testing.assert_close(objective(student, teacher, batch), (parts[0] + parts[1]) / 2)
    alike = EmbeddingRegression()
    alike.build(teacher, teacher)
    assert not list(alike.parameters())
    assert not alike(teacher, teacher, batch).any()


def test_different_widths_are_an_error() -> None:
    with pytest.raises(ValueError, match="embedding_regression_loss: the student's shape"):
        embedding_regression_loss(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_embeddings_of_tokens_have_one_value_each(distance: Distance) -> None:
    student, teacher = torch.randn(2, 5, 3, 6, generator=torch.Generator().manual_seed(0))
    values = embedding_regression_loss(student, teacher, distance, reduction="none")
    for row in range(5):
        expected = embedding_regression_loss(student[row], teacher[row], distance, "none")
        torch.testing.assert_close(values[row], expected)
