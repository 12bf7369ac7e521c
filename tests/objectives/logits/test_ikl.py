"""IKL is GKL with the probabilities as weights: half a variance."""

from __future__ import annotations

import torch

from instil.objectives.logits.ikl import IKL
from instil.objectives.logits.kd import kd_loss


def test_is_kl_plus_half_the_variance_of_the_logit_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2)
    )
    expected = []
    for s, t, p in zip(
        student.numpy(), teacher.numpy(), (teacher / 3).softmax(-1).numpy(), strict=True
    ):
        average = sum(p * (t - s))
        expected.append(sum(p * (t - s - average) ** 2) / 2)
    values = IKL(2.0, 3.0, 0.7)({"logits": student}, {"logits": teacher}, {})
    torch.testing.assert_close(
        values,
        kd_loss(student, teacher, 2.0, False, reduction="none")
        + 0.7 * torch.tensor(expected, dtype=torch.float64),
    )


def test_class_means_can_replace_the_weights_of_the_sample() -> None:
    objective = IKL(prior="class")
    logits = {"logits": torch.randn(3, 4, generator=torch.Generator().manual_seed(0))}
    objective.build(logits, logits)
    objective.after_step(
        objective.state_updates(
            logits, logits, {"image": logits["logits"], "label": torch.tensor([1, 1, -100])}
        )
    )
    assert objective.class_count.tolist() == [1, 3, 1, 1]
    assert not objective.couples
