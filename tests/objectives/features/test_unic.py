from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.core import Outputs
from instil.functional.ensembles import sample_teacher_mask
from instil.objectives.features.unic import UNIC, unic_loss


def test_agrees_with_a_plain_loop_over_tokens() -> None:
    student, teacher = (
        torch.randn(2, 3, 4, dtype=torch.float64),
        torch.randn(2, 3, 4, dtype=torch.float64),
    )
    for n in range(2):
        terms = []
        for a, b in zip(student[n].numpy(), teacher[n].numpy(), strict=True):
            difference = np.abs(a - b)
            terms.append(
                0.25 * (1 - a @ b / np.sqrt((a @ a) * (b @ b)))
                + 0.75 * np.where(difference < 0.5, difference**2, difference - 0.25).mean()
            )
        assert np.isclose(
            unic_loss(student, teacher, 0.25, 0.75, 0.5, "none")[n], np.mean(terms), rtol=1e-10
        )
    assert torch.allclose(
        unic_loss(student[:, 0], teacher[:, 0]), unic_loss(student[:, :1], teacher[:, :1])
    )


def test_the_teacher_of_the_largest_loss_is_never_dropped() -> None:
    losses, noise = (
        torch.tensor([[1.0, 3, 2], [4, 0, 0]]),
        torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.5, 0.49]]),
    )
    assert sample_teacher_mask(losses, noise, 0.5).tolist() == [[1, 1, 0], [1, 1, 0]]
    assert sample_teacher_mask(losses, noise, 1.0).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert sample_teacher_mask(losses, noise, 0.0).tolist() == [[1, 1, 1], [1, 1, 1]]


def outputs(seed: int, channels: int, samples: int = 6) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    return {
        "features": torch.randn(samples, channels, 2, 2, generator=generator),
        "embedding": torch.randn(samples, channels, generator=generator),
    }


@pytest.mark.parametrize("drop", [0.0, 0.5, 1.0])
def test_the_loss_of_a_sample_is_the_mean_over_its_remaining_teachers(drop: float) -> None:
    student, one, two = outputs(0, 4), outputs(1, 6), outputs(2, 4)
    teacher = {"members": (one, two)}
    objective = UNIC(drop=drop)
    objective.build(student, teacher)
    batch = {"index": torch.arange(6), "step": torch.tensor(2)}
    values = objective(student, teacher, batch)
    objective.drop = 0.0
    mean = objective(student, teacher, batch)
    each = torch.stack(
        [losses_of(objective, student, member, index) for index, member in enumerate((one, two))],
        1,
    )
    assert torch.allclose(mean, each.mean(1))
    for n in range(6):
        assert any(torch.isclose(values[n], allowed) for allowed in (mean[n], each[n].max()))
    if drop == 1:
        assert torch.allclose(values, each.amax(1))
    rows = torch.tensor([4, 1])
    objective.drop = drop
    cut = objective(
        {role: value[rows] for role, value in student.items()},
        {
            "members": tuple(
                {role: value[rows] for role, value in member.items()} for member in (one, two)
            )
        },
        {"index": batch["index"][rows], "step": torch.tensor(2)},
    )
    assert torch.allclose(cut, values[rows])


def losses_of(objective: UNIC, student: Outputs, member: Outputs, index: int) -> torch.Tensor:
    """Return the losses of one teacher, with the modules of the objective for it."""
    class_loss = unic_loss(
        objective.heads[index](student["embedding"]),
        objective.class_targets[index](member["embedding"]),
        reduction="none",
    )
    patches = objective.adapters[index](student["features"]).flatten(2).mT
    patch_loss = unic_loss(
        patches, objective.targets[index](member["features"].flatten(2).mT), reduction="none"
    )
    return (class_loss + patch_loss) / 2


def test_a_member_without_an_embedding_is_named() -> None:
    with pytest.raises(ValueError, match="teacher 1 outputs features, without an embedding"):
        UNIC().build(
            outputs(0, 4), {"members": (outputs(1, 4), {"features": torch.randn(6, 4, 2, 2)})}
        )


def test_compiles_whole() -> None:
    student, teacher = torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    compiled = torch.compile(unic_loss, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(student, teacher), unic_loss(student, teacher))
    losses, noise = torch.rand(4, 3), torch.rand(4, 3)
    assert torch.equal(
        torch.compile(sample_teacher_mask, fullgraph=True, backend="eager")(losses, noise, 0.5),
        sample_teacher_mask(losses, noise, 0.5),
    )
