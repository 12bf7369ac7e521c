"""Recommendation: the call, and wrong inputs."""

from __future__ import annotations

import pytest
import torch

from instil.networks.matrix_factorization import matrix_factorization
from instil.tasks.recommendation import Recommendation, call
from tests.tasks.samples import users


def test_scores_are_products_of_the_vectors_and_a_bias() -> None:
    model = matrix_factorization(12, 4, width=3)
    model.get_parameter("bias").data = torch.arange(4.0)
    outputs = call(model, users())
    query, items = outputs["query_embedding"], outputs["candidate_embedding"]
    assert items.shape == (12, 4, 3)
    for user, item in ((0, 0), (5, 3)):
        expected = query[user] @ items[user, item] + item
        torch.testing.assert_close(outputs["logits"][user, item], expected)
    assert list(call(torch.nn.Embedding(12, 4), users())) == ["logits"]


def test_users_that_are_no_indices_are_refused() -> None:
    with pytest.raises(ValueError, match=r"user: wrong form\. Expected one whole number"):
        Recommendation().check_data(users() | {"user": torch.zeros(12, 2)})
