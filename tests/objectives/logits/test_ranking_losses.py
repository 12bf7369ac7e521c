"""Losses on the scores of candidates, compared with loops over candidates and rankings."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.functional.ranking import PADDED_SCORE
from instil.objectives.labels.ranking_cross_entropy import ranking_cross_entropy_loss
from instil.objectives.logits.margin_mse import MarginMSE, margin_mse_loss
from instil.objectives.logits.rank_distil import RankDistil, rank_distil_loss
from instil.objectives.logits.relaxed_ranking import (
    RelaxedRanking,
    relaxed_ranking_loss,
    sample_by_rank,
)

SIZES = 7, 4, 2, 3
"""Number of candidates of each query."""


def scores(seed: int = 0, rows: int = 3, size: int = 5) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def test_margin_mse_equals_a_loop_over_the_other_candidates() -> None:
    student, teacher = scores(0), scores(1)
    label = torch.tensor([[0, 0, 2, 1, 0.0], [1, 0, 0, 0, 0], [-100.0] * 5])
    for row, positive in enumerate((2, 0, int(teacher[2].argmax()))):
        errors = []
        for other in set(range(5)) - {positive}:
            margin = student[row, positive] - student[row, other]
            errors.append((margin - (teacher[row, positive] - teacher[row, other])) ** 2)
        expected = sum(errors) / 4
        torch.testing.assert_close(
            margin_mse_loss(student, teacher, label, "none")[row], torch.as_tensor(expected)
        )
    assert margin_mse_loss(teacher + 7, teacher, label).item() == pytest.approx(0, abs=1e-9)


def test_margin_mse_ignores_missing_candidates() -> None:
    student, teacher = scores(0), scores(1)
    label = torch.eye(5)[:3]
    padding = torch.full((3, 2), PADDED_SCORE)
    padded = [torch.cat([side, padding], 1) for side in (student, teacher)]
    padded_label = torch.cat([label, torch.full((3, 2), -100.0)], 1)
    torch.testing.assert_close(
        margin_mse_loss(*padded, padded_label), margin_mse_loss(student, teacher, label)
    )
    objective = MarginMSE()
    outputs = [{"logits": side} for side in padded]
    torch.testing.assert_close(
        objective(*outputs, {"label": padded_label}).mean(),
        margin_mse_loss(student, teacher, label),
    )


def test_relaxed_ranking_equals_the_formula() -> None:
    interesting, others = scores(0, size=3), scores(1, size=4)
    for row in range(3):
        expected = torch.zeros(())
        for k in range(3):
            denominator = interesting[row, k:].exp().sum() + others[row].exp().sum()
            expected = expected - (interesting[row, k] - denominator.log())
        actual = relaxed_ranking_loss(interesting, others, "none")[row]
        torch.testing.assert_close(actual, expected)
    missing = torch.cat([interesting, torch.full((3, 1), PADDED_SCORE)], 1)
    torch.testing.assert_close(
        relaxed_ranking_loss(missing, others), relaxed_ranking_loss(interesting, others)
    )


def test_interesting_items_are_ordered_and_above_the_uninteresting_ones() -> None:
    teacher = scores(2, rows=50, size=12)
    uniforms = torch.rand(50, 2, 12, generator=torch.Generator().manual_seed(3))
    interesting, others, _ = sample_by_rank(teacher, uniforms, 4, temperature=2.0)
    top, below = teacher.gather(1, interesting), teacher.gather(1, others)
    assert (top[:, :-1] >= top[:, 1:]).all()
    assert (below < top[:, -1:]).all()
    assert all(len(set(row)) == 4 for row in others.tolist())
    rank = (teacher[:, None] > top[:, :, None]).sum(-1).float()
    assert rank.mean() < 4, "small temperatures sample items near the top"


@pytest.mark.parametrize("objective", [RankDistil(k=3), RelaxedRanking(k=3)])
def test_missing_candidates_do_not_change_sampled_losses(
    objective: RankDistil | RelaxedRanking,
) -> None:
    lists = [(scores(seed, 1, size), scores(seed + 9, 1, size)) for seed, size in enumerate(SIZES)]
    padded = [
        torch.cat([F.pad(one, (0, 9 - one.shape[1]), value=PADDED_SCORE) for one in side])
        for side in zip(*lists, strict=True)
    ]
    student = padded[0].requires_grad_()
    batch = {"index": torch.arange(len(SIZES)), "step": torch.tensor(0), "seed": torch.tensor(0)}
    actual = objective({"logits": student}, {"logits": padded[1]}, batch)
    for index, (own, other) in enumerate(lists):
        rows = batch | {"index": torch.tensor([index])}
        expected = objective({"logits": own}, {"logits": other}, rows)[0]
        torch.testing.assert_close(actual[index], expected)
    assert torch.autograd.grad(actual.sum(), student)[0].isfinite().all()


def test_a_query_with_few_items_has_half_of_them_in_each_sample() -> None:
    teacher = scores(4, rows=4, size=8)
    teacher[:, 5:] = PADDED_SCORE
    teacher[3] = PADDED_SCORE
    uniforms = torch.rand(4, 2, 8, generator=torch.Generator().manual_seed(3))
    interesting, others, is_sampled = sample_by_rank(teacher, uniforms, 3, temperature=2.0)
    assert is_sampled.tolist() == [[True, True, False]] * 3 + [[False] * 3]
    for row in range(3):
        assert set(interesting[row, :2].tolist()).isdisjoint(others[row, :2].tolist())
        assert (teacher[row, interesting[row, :2]] > PADDED_SCORE).all()
        assert (teacher[row, others[row, :2]] > PADDED_SCORE).all()
        assert teacher[row, others[row, :2]].max() < teacher[row, interesting[row, :2]].min()


def test_relaxed_ranking_takes_another_sample_in_another_step() -> None:
    student, teacher = {"logits": scores(0, size=30)}, {"logits": scores(1, size=30)}
    objective = RelaxedRanking(k=5)
    batch = {"index": torch.arange(3), "step": torch.tensor(0), "seed": torch.tensor(0)}
    first = objective(student, teacher, batch)
    assert torch.equal(first, objective(student, teacher, batch))
    assert not torch.equal(first, objective(student, teacher, batch | {"step": torch.tensor(1)}))


def plackett_luce(values: Tensor, ranking: tuple[int, ...], k: int) -> Tensor:
    """Probability of the first k of a ranking."""
    probability = torch.ones(())
    for position in range(k):
        remaining = values[list(ranking[position:])].exp()
        probability = probability * remaining[0] / remaining.sum()
    return probability


def test_rank_distil_of_a_ranking_is_its_log_likelihood() -> None:
    student = scores(0, rows=1, size=4)
    rankings = list(permutations(range(4)))
    for ranking in rankings[::5]:
        loss = rank_distil_loss(student, torch.tensor([[ranking]]), k=2)
        torch.testing.assert_close(loss, -plackett_luce(student[0], ranking, 2).log())


def test_rank_distil_approaches_the_cross_entropy_of_the_rankings() -> None:
    student, teacher = scores(0, rows=1, size=4), scores(1, rows=1, size=4)
    expected = torch.zeros(())
    for ranking in permutations(range(4)):
        weight = plackett_luce(teacher[0], ranking, 4)
        expected = expected - weight * plackett_luce(student[0], ranking, 2).log()
    objective = RankDistil(k=2, rankings=4000)
    batch = {"index": torch.arange(1), "step": torch.tensor(0), "seed": torch.tensor(0)}
    actual = objective({"logits": student}, {"logits": teacher}, batch)[0]
    assert actual.item() == pytest.approx(expected.item(), rel=0.03)


def test_ranking_cross_entropy_equals_the_formula() -> None:
    student = scores(0)
    label = torch.tensor([[0, 1, 3, 0, -100.0], [1, 0, 0, 0, 0], [0.0] * 5])
    log_probs = student[0, :4].log_softmax(0)
    values = ranking_cross_entropy_loss(student, label, "none")
    torch.testing.assert_close(values[0], -(log_probs[1] + 3 * log_probs[2]) / 4)
    torch.testing.assert_close(values[1], -student[1].log_softmax(0)[0])
    assert values[2] == 0
    with pytest.raises(ValueError, match="target: wrong shape"):
        ranking_cross_entropy_loss(student, label[:, :2])
