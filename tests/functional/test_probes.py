"""Probes: leave-one-out predictions against explicit refits."""

from __future__ import annotations

import math

import pytest
import torch

from instil.functional.probes import knn_votes, ridge_scores


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(30) % 3
    embedding = torch.randn(30, 5, generator=generator) + torch.eye(3, 5)[label]
    return embedding, label


def test_the_ridge_scores_are_those_of_fits_without_the_sample() -> None:
    embedding, label = samples()
    values = embedding.double()
    target = torch.nn.functional.one_hot(label, 3).double()
    penalty = 0.5
    scale = (values - values.mean(0)).square().sum() / values.shape[1]
    expected = []
    for n in range(len(label)):
        others = [i for i in range(len(label)) if i != n]
        # The intercept is not penalised.
        inputs = torch.cat([values, torch.ones(len(values), 1).double()], 1)
        ridge = penalty * scale * torch.diag(torch.tensor([1.0] * 5 + [0.0]).double())
        gram = inputs[others].T @ inputs[others] + ridge
        weight = torch.linalg.solve(gram, inputs[others].T @ target[others])
        expected.append(inputs[n] @ weight)
    torch.testing.assert_close(ridge_scores(embedding, label, 3, [penalty]), torch.stack(expected))


def test_the_penalty_with_the_smallest_error_is_used() -> None:
    embedding, label = samples()
    target = torch.nn.functional.one_hot(label, 3).double()
    each = {p: ridge_scores(embedding, label, 3, [p]) for p in (1e-4, 1e-1, 1e3)}
    best = min(each, key=lambda p: float((each[p] - target).square().mean()))
    assert torch.equal(ridge_scores(embedding, label, 3, list(each)), each[best])
    noise = torch.randn(30, 25, generator=torch.Generator().manual_seed(1))
    fitted = ridge_scores(noise, label, 3).argmax(1) == label
    assert fitted.double().mean() < 0.7, "a probe that saw the sample would fit it"


def test_constant_embeddings_give_the_most_frequent_other_class() -> None:
    scores = ridge_scores(torch.ones(5, 3), torch.tensor([0, 0, 0, 0, 1]), 2)
    expected = torch.tensor([[0.75, 0.25]] * 4 + [[1.0, 0.0]]).double()
    torch.testing.assert_close(scores, expected)


def test_the_votes_are_weighted_by_cosine_and_exclude_the_sample() -> None:
    embedding, label = samples()
    votes = knn_votes(embedding, label, 3, neighbours=4, temperature=0.2)
    units = (embedding / embedding.norm(dim=1, keepdim=True)).double()
    for n in range(len(label)):
        cosines = sorted(
            ((float(units[n] @ units[i]), int(label[i])) for i in range(30) if i != n),
            reverse=True,
        )[:4]
        expected = [0.0, 0.0, 0.0]
        for cosine, of_class in cosines:
            expected[of_class] += math.exp((cosine - cosines[0][0]) / 0.2)
        assert votes[n].tolist() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(
        knn_votes(embedding, label, 3, neighbours=100), knn_votes(embedding, label, 3, 29)
    )


@pytest.mark.parametrize("probe", [knn_votes, ridge_scores])
def test_one_sample_has_no_others(probe: object) -> None:
    with pytest.raises(ValueError, match="a probe needs other samples"):
        probe(torch.ones(1, 2), torch.tensor([0]), 2)  # type: ignore[operator]
