"""DINOv2: assignments of images and patches to prototypes of the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from instil.objectives.features.dinov2 import DINOv2, dinov2_loss


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def outputs(seed: int, width: int, channels: int, side: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(6, channels, side, side, generator=generator)
    return {"embedding": torch.randn(6, width, generator=generator), "features": (level,)}


def built(**options: float) -> DINOv2:
    torch.manual_seed(0)
    objective = DINOv2(prototypes=5, layers=1, **options)  # type: ignore[arg-type]
    student, teacher = outputs(0, 3, 2, 4), outputs(1, 4, 3, 2)
    objective.resolve(student, teacher)
    objective.build(student, teacher)
    return objective


def test_is_the_cross_entropy_with_a_centred_target() -> None:
    student, teacher = torch.randn(3, 2, 5).double(), torch.randn(3, 2, 5).double()
    centre = torch.randn(5).double()
    target = softmax((teacher - centre).numpy() / 0.2)
    expected = -(target * np.log(softmax(student.numpy() / 0.5))).sum(-1)
    values = dinov2_loss(student, teacher, centre, 0.5, 0.2, "none")
    assert np.allclose(values, expected)
    with pytest.raises(ValueError, match="dinov2_loss: the student's shape"):
        dinov2_loss(student, teacher[..., :4])


def test_images_and_patches_are_compared_through_the_prototypes() -> None:
    objective = built(patch_weight=0.5)
    student, teacher = outputs(2, 3, 2, 4), outputs(3, 4, 3, 2)
    predicted, _ = objective.head(student["embedding"], teacher["embedding"])
    prototypes = objective.image_prototypes
    image = dinov2_loss(
        torch.nn.functional.normalize(predicted, dim=1) @ prototypes.directions.T,
        torch.nn.functional.normalize(teacher["embedding"], dim=1) @ prototypes.directions.T,
        prototypes.centre,
        reduction="none",
    )
    local = objective.adapter(student["features"][0]).flatten(2).mT
    target = teacher["features"][0].flatten(2).mT
    patches = dinov2_loss(
        objective.patch_prototypes(local),
        objective.patch_prototypes(target),
        objective.patch_prototypes.centre,
        reduction="none",
    )
    assert patches.shape == (6, 4)
    torch.testing.assert_close(objective(student, teacher, {}), image + 0.5 * patches.mean(1))


def test_only_hidden_patches_count() -> None:
    student, teacher = outputs(2, 3, 2, 4), outputs(3, 4, 3, 2)
    mask = torch.zeros(6, 8, 8)
    mask[0, :4, 4:] = 1
    torch.manual_seed(0)
    objective = DINOv2(prototypes=5, layers=1)
    objective.resolve([*student, "patch_mask"], teacher)
    objective.build(student | {"patch_mask": mask}, teacher)
    values = objective(student | {"patch_mask": mask}, teacher, {})
    objective.patch_weight = 0.0
    image = objective(student | {"patch_mask": mask}, teacher, {})
    local = objective.adapter(student["features"][0]).flatten(2).mT
    hidden = dinov2_loss(
        objective.patch_prototypes(local),
        objective.patch_prototypes(teacher["features"][0].flatten(2).mT),
        objective.patch_prototypes.centre,
        reduction="none",
    )
    torch.testing.assert_close(values[0], image[0] + hidden[0, 1])
    torch.testing.assert_close(values[1:], image[1:])


def test_the_prototypes_are_clusters_of_the_calibration_samples() -> None:
    objective = built()
    teacher = outputs(4, 4, 3, 2)
    counted = torch.tensor([True, True, False, True, True, True])
    rows = objective.collect_statistics(teacher, {"valid": counted, "image": torch.zeros(6, 1)})
    assert rows["embedding"].shape == (5, 4)
    assert rows["patches"].shape == (5, 4, 3)
    objective.load_statistics(rows)
    prototypes = objective.image_prototypes
    # Five prototypes for five vectors: each vector is one of them.
    cosines = prototypes(rows["embedding"])
    torch.testing.assert_close(cosines.amax(1), torch.ones(5))
    assert sorted(cosines.argmax(1).tolist()) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(prototypes.centre, prototypes(rows["embedding"]).mean(0))
