"""USKD against a plain loop, in both forms and for both kinds of label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from instil.core import Objectives
from instil.objectives.logits.uskd import USKD, uskd_loss, zipf_shares


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, weak = (
        torch.randn(5, 6, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return student, weak


HARD = torch.tensor([0, 1, 5, 2, 1])
MIXED = torch.tensor(
    [
        [0.7, 0, 0.3, 0, 0, 0],
        [0, 0.6, 0, 0.4, 0, 0],
        [0, 0, 0.2, 0, 0, 0.8],
        [0.1, 0.9, 0, 0, 0, 0],
        [0, 0, 0, 0.35, 0.65, 0],
    ]
).double()


def softmax(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def reference(
    student: Tensor,
    weak: Tensor,
    target: np.ndarray,
    alpha: float,
    beta: float,
    mu: float,
    form: str,
) -> float:
    """Loss for shares ``target`` (N, C), with the classes sorted by decreasing share."""
    strong_rows, weak_rows = (
        [softmax(row) for row in student.numpy()],
        [softmax(row) for row in weak.numpy()],
    )
    classes = [[c for c in np.argsort(-row, kind="stable") if row[c] > 0] for row in target]
    total = 0.0
    for n, (s, w, own) in enumerate(zip(strong_rows, weak_rows, classes, strict=True)):
        for rank, c in enumerate(own):
            centre = np.mean(
                [
                    other[other_classes[rank]] ** 2
                    for other, other_classes in zip(strong_rows, classes, strict=True)
                ]
            )
            total -= alpha * (s[c] ** 2 + target[n][c] - centre) * np.log(s[c])
        others = [c for c in range(6) if c not in own]
        sides = [w, np.log(s) if form == "code" else s]
        score = sum(side / (1 - sum(side[c] for c in own) + 1e-6) for side in sides)
        ranked = sorted(
            range(6) if form == "code" else others, key=lambda c, score=score: -score[c]
        )
        zipf = {c: 1 / (1 + ranked.index(c)) for c in others}
        rest = softmax(student[n].numpy()[others])
        total -= (
            beta * sum(zipf[c] * np.log(rest[i]) for i, c in enumerate(others)) / sum(zipf.values())
        )
        total -= mu * sum((0.9 * target[n][c] + 0.1 / 6) * np.log(w[c]) for c in range(6))
    return total / len(target)


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize(("alpha", "beta", "mu"), [(1.0, 0.1, 0.005), (0.1, 2.0, 0.3)])
@pytest.mark.parametrize("mixed", [False, True])
def test_equals_the_formula(mixed: bool, alpha: float, beta: float, mu: float, form: str) -> None:
    student, weak = pair()
    shares = MIXED if mixed else torch.eye(6, dtype=torch.float64)[HARD]
    expected = reference(student, weak, shares.numpy(), alpha, beta, mu, form)
    loss = uskd_loss(student, weak, MIXED if mixed else HARD, alpha, beta, mu, form)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_a_one_hot_label_equals_a_class_index() -> None:
    student, weak = pair()
    torch.testing.assert_close(
        uskd_loss(student, weak, torch.eye(6)[HARD]), uskd_loss(student, weak, HARD)
    )


def test_generated_labels_are_constants() -> None:
    student, weak = pair()
    weak.requires_grad_()
    (gradient,) = torch.autograd.grad(
        uskd_loss(student, weak, HARD, mu=0.0), weak, allow_unused=True
    )
    assert gradient is None or (gradient == 0).all()
    log_strong, log_weak, is_label = (
        student.log_softmax(-1),
        weak.log_softmax(-1),
        torch.eye(6)[HARD] > 0,
    )
    for form in ("code", "paper"):
        shares = zipf_shares(log_strong, log_weak.detach(), is_label, form)
        torch.testing.assert_close(shares.sum(-1), torch.ones(5, dtype=torch.float64))
        assert (shares[is_label] == 0).all()


def test_a_label_with_both_of_two_classes_is_finite() -> None:
    student = torch.randn(3, 2, requires_grad=True)
    loss = uskd_loss(student, torch.zeros(3, 2), torch.tensor([[0.5, 0.5], [0.3, 0.7], [1.0, 0.0]]))
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_rows_without_a_label_do_not_count() -> None:
    student, weak = pair()
    half = torch.where(torch.arange(5) < 3, HARD, -100)
    torch.testing.assert_close(
        uskd_loss(student, weak, half), uskd_loss(student[:3], weak[:3], HARD[:3])
    )


@pytest.mark.parametrize("role", ["features", "embedding"])
def test_the_weak_classifier_reads_an_earlier_stage_or_the_embedding(role: str) -> None:
    features = tuple(torch.randn(5, width, 2, 2) for width in (3, 4, 6))
    student = {
        "logits": torch.randn(5, 6),
        role: features if role == "features" else torch.randn(5, 7),
    }
    objectives = Objectives({"it": USKD()})
    objectives.build(student, {})
    objective = objectives["it"]
    assert objective.classifier.in_features == (4 if role == "features" else 7)
    objectives(student, {}, {"label": HARD}).losses["it"].backward()
    assert objective.classifier.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match=r"no stage -3\. Expected an index into 2 stages"):
        Objectives({"it": USKD(stage=-3)}).build(
            {"logits": torch.zeros(2, 3), "features": (torch.zeros(2, 3, 2, 2),) * 2}, {}
        )
    with pytest.raises(ValueError, match=r"form: unknown value\. Expected one of code, paper"):
        USKD(form="papers")  # type: ignore[arg-type]


def test_compiles() -> None:
    student, weak = pair()
    compiled = torch.compile(uskd_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(student, weak, MIXED), uskd_loss(student, weak, MIXED))
