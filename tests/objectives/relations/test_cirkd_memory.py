from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED, Batch, Objectives, Outputs
from instil.modules.class_memory import draw_class_rows
from instil.modules.memory import Queue
from instil.objectives.relations.cirkd_memory import (
    MAX_PIXELS_PER_IMAGE,
    CIRKDMemory,
    cirkd_memory_loss,
)

CLASSES = 3


def sample(size: int = 4, seed: int = 0) -> tuple[Outputs, Outputs, Batch]:
    generator = torch.Generator().manual_seed(seed)
    sides = [
        {"features": torch.randn(size, channels, 8, 8, generator=generator)} for channels in (5, 6)
    ]
    sides[0]["logits"] = torch.zeros(size, 8, 8, CLASSES)
    label = torch.randint(
        0, CLASSES - 1, (size, 8, 8), generator=generator
    )  # the last class never occurs
    label[:, 0] = UNLABELLED
    return (
        sides[0],
        sides[1],
        {"label": label, "index": torch.arange(size) + 10 * seed, "step": torch.tensor(seed)},
    )


def make(**options: float | str) -> CIRKDMemory:
    torch.manual_seed(0)
    objective = CIRKDMemory(
        **{
            "contrast_pixels": 12,
            "contrast_regions": 6,
            "pixel_memory": 40,
            "region_memory": 5,
            **options,
        }
    )  # type: ignore[arg-type]
    with torch.no_grad():
        objective.build(*sample()[:2])
    return objective


def queues(objective: CIRKDMemory) -> tuple[Queue, Queue]:
    pixels, regions = objective.pixels_kept[0], objective.regions_kept[0]
    assert isinstance(pixels, Queue)
    assert isinstance(regions, Queue)
    return pixels, regions


def test_agrees_with_plain_loops() -> None:
    student, teacher, memory = (
        F.normalize(torch.randn(size, 4, dtype=torch.float64), dim=1) for size in (5, 5, 7)
    )
    expected = []
    for student_values, teacher_values in zip(student.numpy(), teacher.numpy(), strict=True):
        q, p = (
            np.exp(memory.numpy() @ side / 0.3 / 2) for side in (student_values, teacher_values)
        )
        q, p = q / q.sum(), p / p.sum()
        expected.append(4 * (p * np.log(p / q)).sum())
    assert np.allclose(
        cirkd_memory_loss(student, teacher, memory, 0.3, 2.0, reduction="none"),
        expected,
        rtol=1e-10,
    )


def test_forward_is_the_mean_over_labelled_pixels_of_both_relations() -> None:
    objective, (student, teacher, batch) = make(pixel=2.0, region=3.0), sample()
    values = objective(student, teacher, batch)
    pixels, regions = queues(objective)
    student_values = (
        F.normalize(objective.adapters[0](student["features"]), dim=1).flatten(2).mT[:, 8:]
    )  # without the first row
    teacher_values = F.normalize(teacher["features"], dim=1).flatten(2).mT[:, 8:]
    expected = torch.zeros(4)
    for weight, queue, contrast in ((2.0, pixels, 12), (3.0, regions, 6)):
        rows = queue["teacher"][
            draw_class_rows(queue, contrast, batch, f"{objective.stream}.contrast")
        ]
        expected = expected + weight * cirkd_memory_loss(
            student_values, teacher_values, rows, reduction="none"
        ).mean(1)
    assert torch.allclose(values, expected, rtol=1e-4)


def test_regions_and_pixels_of_each_class_are_remembered() -> None:
    objective, (student, teacher, batch) = make(), sample()
    pixels, regions = queues(objective)
    before = regions["teacher"].clone()
    objective.after_step(objective.state_updates(student, teacher, batch))
    directions = F.normalize(teacher["features"], dim=1)
    for label in range(CLASSES - 1):
        for image in range(4):
            own = directions[image][:, batch["label"][image] == label].T
            region = F.normalize(own.mean(0), dim=0)
            assert torch.allclose(regions["teacher"][5 * label + image], region, atol=1e-6)
            for row in pixels["teacher"][40 * label : 40 * label + 40][
                pixels.owner[40 * label : 40 * label + 40] == image
            ]:
                assert (own - row).abs().amax(1).min() < 1e-6, "a pixel of its class and image"
    assert regions.owner.view(CLASSES, 5)[:, :4].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [-1] * 4]
    assert torch.equal(regions["teacher"][10:], before[10:]), "nothing was seen of the last class"
    assert pixels.owner.view(CLASSES, 40)[0].bincount().tolist() == [
        0,
        40 - 2 * MAX_PIXELS_PER_IMAGE,
        MAX_PIXELS_PER_IMAGE,
        MAX_PIXELS_PER_IMAGE,
    ], "the first were pushed out"
    assert len(pixels["teacher"][:40].unique(dim=0)) == 40, "no pixel twice"


@pytest.mark.parametrize("cuts", [[1, 4, 3], [5, 3]])
def test_the_cut_of_the_batch_does_not_matter(cuts: list[int]) -> None:
    def steps(cut: list[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
        objective = make()
        objectives, losses = Objectives({"it": objective}), []
        for step in range(3):
            student, teacher, batch = sample(8, step)
            row_lists: dict[str, list[Tensor]] = {}
            total = torch.zeros(())
            for rows in torch.arange(8).split(cut):
                part = [
                    {k: v[rows] if v.ndim else v for k, v in side.items()}
                    for side in (student, teacher, batch)
                ]
                update = objectives(*part)
                total = total + update.losses["it"].detach() * len(rows) / 8
                for name, value in update.state_updates.items():
                    row_lists.setdefault(name, []).append(value)
            objectives.after_step({name: torch.cat(values) for name, values in row_lists.items()})
            losses.append(total)
        return losses, copy.deepcopy(objective.state_dict())

    (whole, after), (pieces, same) = steps([8]), steps(cuts)
    assert torch.allclose(torch.stack(whole), torch.stack(pieces), rtol=1e-5)
    for name, value in after.items():
        assert torch.allclose(value, same[name], atol=1e-6), name


def test_invalid_pixels_are_not_remembered() -> None:
    objective, other, (student, teacher, batch) = make(), make(), sample()
    valid = torch.ones(4, 8, 8, dtype=torch.bool)
    valid[:, 4:] = False
    objective.after_step(objective.state_updates(student, teacher, batch | {"valid": valid}))
    label = batch["label"].masked_fill(~valid, UNLABELLED)
    other.after_step(other.state_updates(student, teacher, batch | {"label": label}))
    for name, value in objective.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert not torch.equal(queues(objective)[0]["teacher"], queues(make())[0]["teacher"])


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_invalid_pixels_have_no_loss(norm: str) -> None:
    student, teacher, batch = sample()
    objectives = Objectives({"it": make(norm=norm)})  # type: ignore[arg-type]
    valid = torch.ones(4, 8, 8, dtype=torch.bool)
    valid[:, 4:] = False
    losses = [
        objectives(student, teacher, inputs).losses["it"]
        for inputs in (
            batch | {"valid": valid},
            batch | {"label": batch["label"].masked_fill(~valid, UNLABELLED)},
            batch,
        )
    ]
    assert torch.allclose(losses[0], losses[1])
    assert not torch.allclose(losses[0], losses[2])


def test_errors_are_clear() -> None:
    objective, (student, teacher, batch) = make(), sample()
    del batch["index"]
    with pytest.raises(ValueError, match="needs 'index' in the batch, which has label, step"):
        objective.state_updates(student, teacher, batch)
    with pytest.raises(ValueError, match="got 'layer'"):
        CIRKDMemory(norm="layer")  # type: ignore[arg-type]


def test_compiles_whole() -> None:
    values = torch.randn(5, 4), torch.randn(5, 4), torch.randn(7, 4)
    assert torch.allclose(
        torch.compile(cirkd_memory_loss, fullgraph=True, backend="eager")(*values),
        cirkd_memory_loss(*values),
    )
