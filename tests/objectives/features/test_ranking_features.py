"""Losses on embeddings of retrieval and recommendation, compared with their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from instil.functional.ranking import PADDED_SCORE
from instil.objectives.features.distillation_experts import (
    DistillationExperts,
    distillation_experts_loss,
)
from instil.objectives.features.multilingual_mse import MultilingualMSE, multilingual_mse_loss


def test_multilingual_mse_pulls_both_texts_to_the_teachers_first_text() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, teacher = torch.randn(3, 4, 5, generator=generator)
    expected = ((first - teacher) ** 2).mean() + ((second - teacher) ** 2).mean()
    torch.testing.assert_close(multilingual_mse_loss(first, second, teacher), expected)
    objective = MultilingualMSE()
    student = {"sentence_embedding": first, "partner_embedding": second}
    other = {"sentence_embedding": teacher, "partner_embedding": torch.full_like(teacher, 9)}
    objective.build(student, other)
    torch.testing.assert_close(objective(student, other, {}).mean(), expected)
    cosine = 2 - F.cosine_similarity(first, teacher) - F.cosine_similarity(second, teacher)
    actual = MultilingualMSE("cosine")(student, other, {})
    torch.testing.assert_close(actual, cosine)


def test_experts_are_mixed_by_the_teachers_embedding() -> None:
    generator = torch.Generator().manual_seed(0)
    experts = torch.randn(2, 3, 4, generator=generator)
    logits, teacher = torch.randn(2, 3, generator=generator), torch.randn(2, 4, generator=generator)
    for row in range(2):
        weight = (logits[row] / 0.5).exp()
        mixture = sum(weight[e] / weight.sum() * experts[row, e] for e in range(3))
        expected = ((mixture - teacher[row]) ** 2).sum()
        actual = distillation_experts_loss(experts, logits, teacher, 0.5, "none")[row]
        torch.testing.assert_close(actual, expected)


def test_shared_items_cost_one_pass_of_the_experts() -> None:
    torch.manual_seed(0)
    student = {
        "query_embedding": torch.randn(6, 3),
        "candidate_embedding": torch.randn(5, 3),
    }
    teacher = {"query_embedding": torch.randn(6, 4), "candidate_embedding": torch.randn(5, 4)}
    shared = [
        side
        | {"candidate_embedding": side["candidate_embedding"].expand(6, -1, -1)}
        | {"logits": torch.zeros(6, 5)}
        for side in (student, teacher)
    ]
    objective = DistillationExperts(experts=2, temperature=1e6)  # the noise has no effect
    objective.build(*shared)
    copied = [{role: value.clone() for role, value in side.items()} for side in shared]
    shapes = []
    objective.sides["candidate_embedding"].register_forward_hook(
        lambda _module, inputs, _outputs: shapes.append(inputs[0].shape[0])
    )
    batch = {"index": torch.arange(6)}
    values = objective(*shared, batch)
    torch.testing.assert_close(values, objective(*copied, batch), atol=1e-4, rtol=1e-4)
    assert values.shape == (6,)
    assert shapes == [1, 6]


def test_the_noise_selects_experts_by_step() -> None:
    torch.manual_seed(0)
    sides = [
        {
            "query_embedding": torch.randn(4, 3),
            "candidate_embedding": torch.randn(4, 2, 3),
            "logits": torch.zeros(4, 2),
        }
        for _ in range(2)
    ]
    objective = DistillationExperts(temperature=0.1)
    objective.build(*sides)
    batch = {"index": torch.arange(4), "step": torch.tensor(0)}
    first = objective(*sides, batch)
    assert torch.equal(first, objective(*sides, batch))
    assert (first != objective(*sides, batch | {"step": torch.tensor(1)})).any()
    with pytest.raises(KeyError):
        objective({"query_embedding": sides[0]["query_embedding"]}, sides[1], batch)


def test_missing_candidates_do_not_count_for_the_experts() -> None:
    torch.manual_seed(0)
    student = {
        "query_embedding": torch.randn(2, 3),
        "candidate_embedding": torch.randn(2, 4, 3),
        "logits": torch.randn(2, 4),
    }
    teacher = {"query_embedding": torch.randn(2, 5), "candidate_embedding": torch.randn(2, 4, 5)}
    objective = DistillationExperts(experts=2)
    objective.build(student, teacher)
    batch = {"index": torch.arange(2)}
    expected = objective(*[_first(side, 3) for side in (student, teacher)], batch)
    student["logits"][:, 3] = PADDED_SCORE
    torch.testing.assert_close(objective(student, teacher, batch), expected)


def _first(side: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """Outputs for the first candidates."""
    return {
        role: value if role == "query_embedding" else value[:, :size]
        for role, value in side.items()
    }
