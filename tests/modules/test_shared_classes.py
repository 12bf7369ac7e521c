"""Losses that compare only the classes that teacher and student share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from instil.core import Objectives
from instil.modules.shared_classes import SharedClasses
from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.dkd import DKD
from instil.objectives.logits.kd import KD

STUDENT = ("a", "b", "c", "d")
TEACHER = ("c", "a", "b")
COLUMNS = [1, 2, 0]


def outputs() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 4, generator=generator).requires_grad_()
    return {"logits": student}, {"logits": torch.randn(5, 3, generator=generator)}


def shared(**objectives: CrossEntropy | KD | DKD) -> Objectives:
    losses = Objectives(objectives)
    losses.selection = SharedClasses(STUDENT, TEACHER)
    losses.build(*outputs())
    return losses


def test_kd_is_the_divergence_over_the_old_classes() -> None:
    student, teacher = outputs()
    label = torch.tensor([3, 0, 3, 1, 3])
    losses = shared(kd=KD(temperature=2.0), cross_entropy=CrossEntropy())(
        student, teacher, {"x": student["logits"], "label": label, "index": torch.arange(5)}
    ).losses
    # Learning without forgetting (Li & Hoiem 2016, Eq. 2): softmax over the old classes only.
    target = F.softmax(teacher["logits"][:, COLUMNS] / 2, 1)
    divergence = F.kl_div(
        F.log_softmax(student["logits"][:, :3] / 2, 1), target, reduction="batchmean"
    )
    torch.testing.assert_close(losses["kd"], 4 * divergence)
    torch.testing.assert_close(losses["cross_entropy"], F.cross_entropy(student["logits"], label))
    (gradient,) = torch.autograd.grad(losses["kd"], student["logits"])
    assert torch.equal(gradient[:, 3], torch.zeros(5))


def test_labels_of_other_classes_do_not_count() -> None:
    student, teacher = outputs()
    batch = {"x": student["logits"], "label": torch.tensor([3, 0, 3, 1, -100])}
    losses = shared(dkd=DKD())
    assert losses.counts(batch)["dkd"] == 2
    rows = [1, 3]
    alone = Objectives({"dkd": DKD()})
    few_student = {"logits": student["logits"][rows][:, :3]}
    few_teacher = {"logits": teacher["logits"][rows][:, COLUMNS]}
    alone.build(few_student, few_teacher)
    expected = alone(
        few_student, few_teacher, {"x": rows_of(batch, rows), "label": torch.tensor([0, 1])}
    )
    torch.testing.assert_close(
        losses(student, teacher, batch).losses["dkd"], expected.losses["dkd"]
    )


def rows_of(batch: dict[str, torch.Tensor], rows: list[int]) -> torch.Tensor:
    return batch["x"][rows]


def test_the_state_is_that_of_the_losses() -> None:
    assert list(shared(kd=KD()).state_dict()) == list(Objectives({"kd": KD()}).state_dict())


def test_too_few_shared_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="teacher and student share 1 classes"):
        SharedClasses(("a", "b"), ("b", "c"))
