"""Dual-space distillation in both spaces, aligned by bytes or by attention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import Objectives
from instil.functional.tokens.cross_attention import cross_attention, divide_by_row_deviation
from instil.objectives.bases.dual_space_objective import DualSpace
from instil.objectives.logits.dskd import DSKD, dskd_loss
from instil.objectives.logits.dskd_cma import DSKDCMA, dskd_cma_loss
from tests.objectives.bases.test_span_objective import OTHER, SPAN, aligned


def models(seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Outputs of two models with heads, 7 and 9 tokens, widths 4 and 6."""
    student, teacher, batch = aligned(seed)
    generator = torch.Generator().manual_seed(seed)

    def add_states(outputs: dict[str, Tensor], width: int) -> None:
        rows, length, size = outputs["logits"].shape
        tensors = [
            torch.randn(*shape, generator=generator).double()
            for shape in ((rows, length, width), (size, width), (size,), (size, width))
        ]
        outputs |= {
            "embedding": tensors[0],
            "head": (tensors[1], tensors[2]),
            "token_embedding": tensors[3],
        }

    add_states(student, 4)
    add_states(teacher, 6)
    ids = {
        "input_ids": batch["label"].clamp_min(0).roll(1, 1),
        "teacher_input_ids": batch["teacher_label"].clamp_min(0).roll(1, 1),
    }
    return student, teacher, batch | ids


def built(
    objective: DualSpace, seed: int = 0
) -> tuple[Objectives, tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]]:
    sides = models(seed)
    torch.manual_seed(0)
    objectives = Objectives({"it": objective})
    objectives.build(*sides[:2])
    return objectives, sides


def kl(p: Tensor, q: Tensor, temperature: float) -> Tensor:
    p, q = ((side / temperature).softmax(-1) for side in (p, q))
    return (p * (p / q).log()).sum()


def test_only_single_token_spans_of_both_sides_count() -> None:
    objectives, (student, teacher, batch) = built(DSKD())
    objective = objectives["it"]
    assert isinstance(objective, DSKD)
    assert objective.weight(batch).tolist() == [[0.0] * 6, [0.0] * 6], (
        "0 0 | 1 | 2 2 against 0 | 1 1 | 2, and 0 | 1 1 1 against 0 0 | 1"
    )
    batch["teacher_span"] = torch.tensor([[0, 1, 2, -1, -1], [0, 1, -1, -1, -1]])
    assert objective.weight(batch).nonzero().tolist() == [[0, 2], [1, 0]]
    (weight, bias), (teacher_weight, other) = student["head"], teacher["head"]
    expected = []
    for row, position, partner in ((0, 2, 1), (1, 0, 0)):
        into_student = weight @ objective.to_student(teacher["embedding"][row, partner]) + bias
        into_teacher = (
            teacher_weight @ objective.to_teacher(student["embedding"][row, position]) + other
        )
        labelled = F.cross_entropy(into_student, batch["label"][row, position])
        compared = kl(into_student, student["logits"][row, position], 2.0) + kl(
            teacher["logits"][row, partner], into_teacher, 2.0
        )
        expected.append(labelled + compared)
    loss = objectives(student, teacher, batch).losses["it"]
    torch.testing.assert_close(loss, torch.stack(expected).mean(), check_dtype=False)


def test_projections_have_a_gradient_and_heads_have_none() -> None:
    for objective in (DSKD(), DSKDCMA()):
        objectives, (student, teacher, batch) = built(objective)
        batch["teacher_span"], leaves = torch.tensor([[0, 1, 2, -1, -1], [0, 1, -1, -1, -1]]), {}
        for side, outputs in (("student", student), ("teacher", teacher)):
            leaves[side] = [outputs[role].requires_grad_() for role in ("logits", "embedding")]
            leaves[f"{side} shared"] = [
                part.requires_grad_() for part in (*outputs["head"], outputs["token_embedding"])
            ]
        objectives(student, teacher, batch).losses["it"].backward()
        assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves["student"])
        assert all(
            leaf.grad is None
            for name in ("student shared", "teacher shared")
            for leaf in leaves[name]
        )
        assert all(
            parameter.grad is not None and parameter.grad.any()
            for parameter in objective.parameters()
        )


def test_rows_with_attention_are_independent_of_each_other_and_of_padding() -> None:
    objectives, (student, teacher, batch) = built(DSKDCMA())
    objective = objectives["it"]
    whole = objective(student, teacher, batch)
    alone = [
        objective(
            *(
                {
                    key: part if key in ("head", "token_embedding") else part[[row]]
                    for key, part in side.items()
                }
                for side in models()
            )
        )
        for row in (0, 1)
    ]
    torch.testing.assert_close(whole, torch.cat(alone))
    spoiled = student | {"logits": student["logits"].masked_fill((SPAN < 0)[..., None], 9.0)}
    others = teacher | {"embedding": teacher["embedding"].masked_fill((OTHER < 0)[..., None], 9.0)}
    torch.testing.assert_close(objective(spoiled, others, batch), whole)
    assert objective.weight(batch).tolist() == [5, 4]


def test_attention_ignores_positions_that_do_not_count() -> None:
    counted, other = torch.tensor([[True, False]]), torch.tensor([[True, True, False]])
    scores = cross_attention(torch.ones(1, 2, 4), torch.ones(1, 3, 4), counted, other)
    assert scores[0, 0, :2].tolist() == [2.0, 2.0]
    assert scores.softmax(-1)[0, 0].tolist() == [0.5, 0.5, 0.0]
    assert scores.softmax(-1).isfinite().all()


def test_counted_positions_are_scaled_to_unit_deviation() -> None:
    values, counted = (
        torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)) * 7,
        torch.tensor([[True, True, True, False, False]]),
    )
    assert float(
        divide_by_row_deviation(values, counted)[0, :3].std(correction=0)
    ) == pytest.approx(1, abs=1e-5)


def test_a_wrong_projected_teacher_adds_no_divergence_in_the_students_space() -> None:
    student, right = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 5.0, 0.0]]])
    target, zeros = torch.tensor([[1]]), torch.zeros(1, 1, 2)
    values = [
        dskd_cma_loss(student, zeros, right, zeros, label, target, 1.0, reduction="none")
        for label in (target, target - 1)
    ]
    assert float(values[0]) == pytest.approx(
        float(F.cross_entropy(right[0], target[0]) + kl(right, student, 1.0))
    )
    assert float(values[1]) == pytest.approx(float(F.cross_entropy(right[0], target[0] - 1)))


@pytest.mark.parametrize(
    "divergence", ["reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl", "adaptive_kl"]
)
def test_the_divergence_option_changes_only_the_students_space(divergence: str) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second, third, fourth = (
        torch.randn(3, size, generator=generator) for size in (4, 5, 4, 5)
    )
    target = torch.tensor([0, 1, -100])
    plain, other = (
        dskd_loss(first, second, third, fourth, target, divergence=name, reduction="none")
        for name in ("forward_kl", divergence)
    )  # type: ignore[arg-type]
    assert (plain - other).abs().min() > 1e-4
    same = [
        dskd_loss(third, second, third, fourth, target, divergence=name)
        for name in ("forward_kl", divergence)
    ]  # type: ignore[arg-type]
    torch.testing.assert_close(*same)


def test_embeddings_of_another_width_than_the_states_are_refused() -> None:
    student, teacher, _ = models()
    teacher["token_embedding"] = teacher["token_embedding"][:, :3]
    with pytest.raises(ValueError, match=r"token embeddings .* Expected 6 channels, got 3"):
        DSKDCMA().build(student, teacher)
