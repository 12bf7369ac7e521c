"""Regions of a dense map against loops, and crops against slices of the image."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Batch, Net
from instil.functional.directions import l2_normalize
from instil.networks.dense_embeddings import dense_embedding, has_dense_embedding
from instil.objectives.features.clip_self import CLIPSelf, clip_self_loss
from instil.schemes.offline.region_crops import RegionCrops, cell_crops, cell_means
from instil.tasks.image_text import call
from instil.teachers.frozen import Frozen
from instil.testing import check_scheme
from tests.students.test_towers import BUILDERS, built, own


def batch(seed: int = 0, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 8, (size, 5), generator=generator)
    ids[:, -1] = 8
    return {
        "image": torch.rand(size, 3, 8, 8, generator=generator),
        "input_ids": ids,
        "label": torch.full((size,), -100),
        "index": torch.arange(size),
    }


def scheme(max_cells: int = 2) -> RegionCrops:
    teacher = Frozen(Net(built(own), call))
    return RegionCrops(Net(built(own), call), teacher, {"clip_self": CLIPSelf()}, max_cells)


def test_contracts() -> None:
    check_scheme(scheme, lambda step: batch(step, 16))


def test_the_loss_is_one_minus_the_cosine() -> None:
    student, teacher = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = [
        sum(1 - float(F.cosine_similarity(student[n, r], teacher[n, r], 0)) for r in range(3)) / 3
        for n in range(2)
    ]
    loss = clip_self_loss(student, teacher, "none")
    torch.testing.assert_close(loss, torch.tensor(expected))
    with pytest.raises(ValueError, match="clip_self_loss"):
        clip_self_loss(student, teacher[:, :2])


def test_means_over_cells_that_divide_the_map_and_over_others() -> None:
    features = torch.randn(2, 3, 4, 6)
    means = cell_means(features, 2, 3).view(2, 2, 3, 3)
    torch.testing.assert_close(means.permute(0, 3, 1, 2), F.adaptive_avg_pool2d(features, (2, 3)))
    # Two cells of 1.5 positions each: the middle position counts half in both.
    column = features[:, :, :3, :1]
    halves = cell_means(column, 2, 1)
    expected = (column[:, :, 0] + column[:, :, 1] / 2) / 1.5
    torch.testing.assert_close(halves[:, 0], expected[..., 0])


def test_crops_are_resized_cells() -> None:
    image = torch.rand(2, 3, 8, 8)
    assert torch.allclose(cell_crops(image, 1, 1)[:, 0], image, atol=1e-6)
    crops = cell_crops(image, 2, 4)
    assert crops.shape == (2, 8, 3, 8, 8)
    # Inside the cell of row 1 and column 2; at its edges the crop also reads its neighbours.
    cell = image[:, :, 4:, 4:6]
    resized = F.interpolate(cell, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(crops[:, 6, :, 1:-1, 2:-2], resized[:, :, 1:-1, 2:-2])


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_position_has_an_embedding(builder: Callable[[], nn.Module]) -> None:
    model = built(builder)
    outputs = Net(model, call)(batch())
    dense = outputs["dense_embedding"]
    assert dense.shape == (4, 6, 2, 2)
    # Rows come first: a change of the lower half changes the lower positions most.
    changed = batch()["image"].clone()
    changed[:, :, 4:] += 1
    change = (dense_embedding(model, changed) - dense).abs().sum((0, 1, 3))
    assert change[1] > change[0]


def test_the_mean_over_the_map_of_a_cnn_is_the_embedding() -> None:
    from instil.networks.two_towers import two_towers

    model = two_towers(9, 5, 3).eval()
    images = batch()["image"]
    mean = dense_embedding(model, images).mean((2, 3))
    torch.testing.assert_close(
        l2_normalize(mean), Net(model, call)(batch())["image_embedding"], rtol=1e-4, atol=1e-5
    )


def test_regions_and_crops_are_those_of_one_grid() -> None:
    ours = scheme(max_cells=3)
    grids = set()
    for step in range(12):
        one = batch() | {"step": torch.tensor(step)}
        student, teacher = ours.forward_both(one)
        rows, columns = ours._grid(one)
        grids.add((rows, columns))
        dense = dense_embedding(ours.student.model, one["image"])
        torch.testing.assert_close(student["region_embedding"], cell_means(dense, rows, columns))
        crop = cell_crops(one["image"], rows, columns)[:, -1]
        assert ours.teacher is not None
        torch.testing.assert_close(
            teacher["region_embedding"][:, -1],
            ours.teacher(one | {"image": crop})["image_embedding"],
        )
    assert len(grids) > 3
    assert max(max(grid) for grid in grids) == 3


def test_models_without_a_map_and_other_widths_are_refused() -> None:
    assert not has_dense_embedding(nn.Linear(2, 2))

    def flat(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"image_embedding": model(batch["image"].flatten(1)), "logit_scale": torch.ones(1)}

    student = Net(nn.Linear(192, 6), flat)
    teacher = Frozen(Net(built(own), call))
    losses = {"clip_self": CLIPSelf()}
    with pytest.raises(ValueError, match="scheme: Linear has no embedding of each position"):
        RegionCrops(student, teacher, losses).forward_both(batch())
    wide = Frozen(Net(nn.Linear(192, 7), flat))
    with pytest.raises(ValueError, match=r"another width\. Expected 7, as the teacher.s, got 6"):
        RegionCrops(Net(built(own), call), wide, losses).forward_both(batch())
