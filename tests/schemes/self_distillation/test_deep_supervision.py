"""Every classifier learns from the labels."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from instil.objectives.labels.cross_entropy import CrossEntropy
from instil.objectives.logits.kd import KD
from instil.schemes.self_distillation.deep_supervision import DeepSupervision
from instil.testing import check_scheme
from tests.schemes.stages import images, staged, timed


def build_supervision(weight: float = 0.25) -> DeepSupervision:
    torch.manual_seed(0)
    return DeepSupervision(staged(), {"cross_entropy": CrossEntropy(average="labelled")}, weight)


def test_contracts() -> None:
    check_scheme(build_supervision, images)


def test_the_further_classifiers_losses_are_added_with_their_weight() -> None:
    scheme = build_supervision()
    scheme.train().prepare(images())
    batch = timed()
    own, *further = (
        F.cross_entropy(end["logits"], batch["label"], ignore_index=-100)
        for end in scheme.branch_outputs(scheme.student(batch))
    )
    assert len(further) == 2
    assert torch.allclose(
        next(iter(scheme.step(batch))).losses["cross_entropy"], own + 0.25 * sum(further)
    )


def test_no_classifier_is_taught_by_another() -> None:
    scheme = DeepSupervision(staged(), {"kd": KD()})
    scheme.train().prepare(images())
    assert next(iter(scheme.step(timed()))).losses["kd"].abs() < 1e-6


def test_the_student_is_exported_without_them() -> None:
    scheme = build_supervision()
    assert scheme.export() is scheme.student
