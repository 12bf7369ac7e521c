"""The student does not see hidden patches; the teacher sees whole images."""

from __future__ import annotations

import pytest
import torch

from instil.core import Batch, Net
from instil.functional.hidden_squares import hide_squares
from instil.networks.cnn import cnn
from instil.objectives.features.dinov2 import DINOv2
from instil.objectives.logits.kd import KD
from instil.schemes.offline.masked_images import MaskedImages
from instil.tasks.classification import call
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme


def batch(seed: int = 0, size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.rand(size, 1, 6, 7, generator=generator),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
    }


def net(width: int, seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cnn(3, width=width, stages=1, norm="none")
    return Net(model, call, {"features": ["stages.0"], "embedding": "dropout"})


def scheme(ratio: float = 0.3, probability: float = 0.5, patch: int = 2) -> MaskedImages:
    objectives = {"dinov2": DINOv2(prototypes=4), "kd": KD()}
    return MaskedImages(net(2), Frozen(net(3, 1)), objectives, ratio, probability, patch)


def test_contracts() -> None:
    check_scheme(scheme, lambda step: batch(step, 16))


def test_only_the_student_misses_the_hidden_patches() -> None:
    ours, images = scheme(ratio=0.5, probability=1.0), batch()
    student, teacher = ours.forward_both(images)
    mask = student["patch_mask"]
    assert mask.shape == (8, 6, 7)
    assert ours.teacher is not None
    assert torch.equal(teacher["logits"], ours.teacher(images)["logits"])
    seen = images["image"].clone()
    for n in range(8):
        assert 0 < float(mask[n].mean()) < 1
        seen[n, 0, mask[n] == 1] = images["image"][n, 0].mean()
    torch.testing.assert_close(hide_squares(images["image"], mask), seen)
    torch.testing.assert_close(student["logits"], ours.student({"image": seen})["logits"])


def test_a_share_of_the_images_is_masked_and_masks_depend_on_seed_step_and_index() -> None:
    ours, images = scheme(), batch(size=400)
    mask = ours.forward_both(images)[0]["patch_mask"]
    assert 0.4 < float((mask.flatten(1).amax(1) > 0).float().mean()) < 0.6
    part = {key: value[3:6] for key, value in images.items()}
    assert torch.equal(ours.forward_both(part)[0]["patch_mask"], mask[3:6])
    later = ours.forward_both(images | {"step": torch.tensor(1)})[0]["patch_mask"]
    assert not torch.equal(later, mask)
    assert float(scheme(probability=0.0).forward_both(images)[0]["patch_mask"].sum()) == 0


def test_data_without_images_and_large_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="squares are hidden in images"):
        scheme().forward_both({"points": torch.zeros(2, 3), "image": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"scheme\.patch: a square is too large\. .* got 4"):
        scheme(patch=4).forward_both(batch())
