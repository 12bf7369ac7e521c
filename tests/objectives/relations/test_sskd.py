from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Outputs
from instil.objectives.relations.sskd import (
    SSKD,
    select_views,
    sskd_contrastive_loss,
    sskd_transformed_loss,
)


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def kept_by_hand(scores: list[np.ndarray], own: list[int], keep: float) -> list[int]:
    """Return the correct ones, and the best incorrect ones by rank and deficit."""
    right = [n for n, row in enumerate(scores) if own[n] < 0 or row.argmax() == own[n]]
    wrong = [n for n in range(len(scores)) if n not in right]
    wrong.sort(
        key=lambda n: ((scores[n] > scores[n][own[n]]).sum(), scores[n].max() - scores[n][own[n]])
    )
    return sorted(right + wrong[: math.floor(len(wrong) * keep)])


@pytest.mark.parametrize("keep", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("labelled", [True, False])
def test_predictions_agree_with_a_plain_loop(keep: float, labelled: bool) -> None:
    student, teacher = (
        torch.randn(5, 3, 4, dtype=torch.float64),
        torch.randn(5, 3, 4, dtype=torch.float64),
    )
    target = torch.tensor([0, 3, -100, 1, 2]) if labelled else None
    student_values, teacher_values = (
        [view.numpy() for sample in side for view in sample] for side in (student, teacher)
    )
    own = [int(target[n // 3]) if target is not None else -100 for n in range(15)]
    is_selected = kept_by_hand(teacher_values, own, keep)
    assert (len(is_selected) == 15) == (keep == 1 or not labelled)
    expected = np.mean(
        [
            9 * kl(softmax(teacher_values[n] / 3), softmax(student_values[n] / 3))
            for n in is_selected
        ]
    )
    assert np.isclose(float(sskd_transformed_loss(student, teacher, target, 3.0, keep)), expected)


def sides(size: int = 5) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    shapes = ((size, 6), (size, 2, 6)), ((size, 4), (size, 2, 4))
    student, teacher = (
        tuple(torch.randn(*shape, dtype=torch.float64) for shape in side) for side in shapes
    )
    return student, teacher  # type: ignore[return-value]


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_whose_view_agrees_with_a_plain_loop(keep: float) -> None:
    student, teacher = sides()
    alike = []
    for samples, views in (student, teacher):
        rows = [view.numpy() for sample in views for view in sample]
        cosine = [[a @ b / math.sqrt((a @ a) * (b @ b)) for b in samples.numpy()] for a in rows]
        alike.append([np.array(row) for row in cosine])
    is_selected = kept_by_hand(alike[1], [n // 2 for n in range(10)], keep)
    assert (len(is_selected) < 10) == (keep < 1)
    expected = np.mean(
        [0.25 * kl(softmax(alike[1][n] / 0.5), softmax(alike[0][n] / 0.5)) for n in is_selected]
    )
    assert np.isclose(float(sskd_contrastive_loss(student, teacher, 0.5, keep)), expected)


def test_views_may_be_named() -> None:
    student, teacher = sides(2)
    terms = []
    for n in range(4):
        selected = torch.arange(4) == n
        terms.append(sskd_contrastive_loss(student, teacher, selected=selected))
    assert torch.isclose(
        torch.stack(terms).mean(), sskd_contrastive_loss(student, teacher, keep=1.0)
    )
    logits = torch.randn(2, 2, 3), torch.randn(2, 2, 3)
    one = sskd_transformed_loss(*logits, selected=torch.tensor([False, True, False, False]))
    assert torch.isclose(one, sskd_transformed_loss(logits[0][:1, 1:], logits[1][:1, 1:]))


def test_ties_of_rank_are_broken_by_what_is_lacking() -> None:
    scores = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    assert select_views(scores, torch.zeros(4, dtype=torch.int64), 0.4).tolist() == [
        False,
        True,
        False,
        True,
    ]


def outputs(width: int, seed: int, projected: bool = False) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    names = ("projection", "view_projection") if projected else ("embedding", "view_embedding")
    shapes = {
        "logits": (4, 3),
        "view_logits": (4, 3, 3),
        names[0]: (4, width),
        names[1]: (4, 3, width),
    }
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("projected", [False, True])
def test_the_student_has_a_head_unless_it_gives_projections(projected: bool) -> None:
    student, teacher, label = (
        outputs(6, 0, projected),
        outputs(5, 1, True),
        torch.tensor([0, 2, -100, 1]),
    )
    objective = SSKD(transformed=0.5, contrastive=2.0, keep_transformed=0.5)
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    assert len(list(objective.parameters())) == (0 if projected else 4)
    role = "projection" if projected else "embedding"
    student_values = objective.head(student[role]), objective.head(student[f"view_{role}"])
    expected = 0.5 * sskd_transformed_loss(
        student["view_logits"], teacher["view_logits"], label, 4.0, 0.5
    )
    expected = expected + 2 * sskd_contrastive_loss(
        student_values, (teacher["projection"], teacher["view_projection"]), 0.5, 0.75
    )
    assert torch.isclose(objective(student, teacher, {"label": label}), expected)


def test_a_net_without_views() -> None:
    with pytest.raises(
        ValueError, match="SSKD needs view_logits of the student, which outputs embedding, logits"
    ):
        SSKD().resolve(("logits", "embedding"), outputs(5, 1))


def test_compiles_whole() -> None:
    logits, target = (torch.randn(4, 3, 5), torch.randn(4, 3, 5)), torch.tensor([0, 2, -100, 1])
    compiled = torch.compile(sskd_transformed_loss, fullgraph=True, backend="eager")
    assert torch.allclose(
        compiled(*logits, target, 4.0, 0.5), sskd_transformed_loss(*logits, target, 4.0, 0.5)
    )
    inputs = sides()
    assert torch.allclose(
        torch.compile(sskd_contrastive_loss, fullgraph=True, backend="eager")(*inputs),
        sskd_contrastive_loss(*inputs),
    )


def test_embeddings_without_views_are_named() -> None:
    samples, views = torch.zeros(4, 5), torch.zeros(4, 2, 5)
    for student in ((samples, samples), samples, (samples, torch.zeros(3, 2, 5))):
        with pytest.raises(ValueError, match=r"Expected \(N, D\) and \(N, V, D\), got \[\("):
            sskd_contrastive_loss(student, (samples, views))  # type: ignore[arg-type]
