"""Feature objectives on sequences, images, videos and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from instil import catalogue
from instil.core import Batch, Objective, Objectives, Outputs
from instil.objectives.features.fitnet import FitNet
from instil.testing.grids import GRIDS, accepts, grid_trial, grids_of_the_card, reads_features
from instil.testing.trials import loss_and_gradient

ON_FEATURES = [
    name
    for name in catalogue.names("objective")
    if reads_features(catalogue.find("objective", name)())
]

ON_IMAGES_AND_VOLUMES = [
    name
    for name in ON_FEATURES
    if {"2d", "3d"} <= set(catalogue.find("objective", name).card.grids)
]
"""Objectives that are not for the frames of a video or for point sets only."""


def insert_depth(outputs: Outputs) -> Outputs:
    """Maps (N, C, H, W) as (N, C, 1, H, W), and logits of pixels as (N, 1, H, W, C)."""
    changed = dict(outputs)
    changed["features"] = tuple(level.unsqueeze(2) for level in outputs["features"])
    if "members" in outputs:
        changed["members"] = tuple(insert_depth(member) for member in outputs["members"])
    if outputs["logits"].ndim == 4:
        changed["logits"] = outputs["logits"].unsqueeze(1)
    return changed


def insert_depth_in_batch(batch: Batch) -> Batch:
    return batch | {"label": batch["label"].unsqueeze(1)} if batch["label"].ndim == 3 else batch


def build(make: Callable[[], Objective], student: Outputs, teacher: Outputs) -> Objective:
    torch.manual_seed(0)
    objective = make()
    with torch.no_grad():
        Objectives({"it": objective}).build(student, teacher)
    return objective.train()


def load_flat_state(deep: Objective, flat: Objective) -> None:
    """Give 3-D kernels the 2-D kernel in the middle and zeros before and behind it."""
    state: dict[str, Tensor] = {}
    for name, value in flat.state_dict().items():
        target = deep.state_dict()[name]
        if value.shape == target.shape:
            state[name] = value
        elif target.shape[2:].numel() == value.shape[2:].numel():
            state[name] = value.view(target.shape)
        else:
            state[name] = torch.zeros_like(target)
            state[name][:, :, target.shape[2] // 2] = value
    deep.load_state_dict(state)


@pytest.mark.parametrize(
    "name", [name for name in ON_IMAGES_AND_VOLUMES if name not in ("sdd", "podnet")]
)
def test_a_volume_of_depth_one_equals_the_image(name: str) -> None:
    # sdd averages over the regions of several grids, and a grid has more regions in 3-D; podnet
    # has a sum for each axis.
    make = catalogue.find("objective", name)
    student, teacher, batch = grid_trial(make(), "2d")
    deep_student, deep_teacher = insert_depth(student), insert_depth(teacher)
    flat, deep = build(make, student, teacher), build(make, deep_student, deep_teacher)
    load_flat_state(deep, flat)
    loss, grads = loss_and_gradient(flat, student, teacher, batch)
    deep_batch = insert_depth_in_batch(batch)
    deep_loss, deep_grads = loss_and_gradient(deep, deep_student, deep_teacher, deep_batch)
    torch.testing.assert_close(deep_loss, loss, rtol=1e-4, atol=1e-6)
    levels = [key for key in grads if key.startswith("features")]
    for key in levels:
        grad = deep_grads[key].squeeze(2)
        torch.testing.assert_close(grad, grads[key], rtol=1e-3, atol=1e-6)


def test_there_are_objectives_on_features() -> None:
    assert len(ON_IMAGES_AND_VOLUMES) > 40


@pytest.mark.parametrize("name", ["fitnet", "attention_transfer", "review_kd", "simkd", "vid"])
@pytest.mark.parametrize(("student", "teacher"), [("3d", "2d"), ("2d", "3d"), ("tokens", "3d")])
def test_student_and_teacher_may_differ_in_dimensions(
    name: str, student: str, teacher: str
) -> None:
    make = catalogue.find("objective", name)
    student_outputs = grid_trial(make(), student)[0]
    _, teacher_outputs, batch = grid_trial(make(), teacher)
    objective = build(make, student_outputs, teacher_outputs)
    loss, grads = loss_and_gradient(objective, student_outputs, teacher_outputs, batch)
    assert torch.isfinite(loss)
    assert any(grad.abs().sum() > 0 for grad in grads.values())


class ImagesOnly(FitNet):
    """FitNet that refuses 3-D features."""

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, adapter: nn.Module
    ) -> Tensor:
        if teacher_features.ndim == 5:
            raise ValueError("images only")
        return super().loss(student_features, teacher_features, adapter)


def test_a_missing_grid_must_be_declared() -> None:
    assert [grid for grid in GRIDS if accepts(ImagesOnly, grid)] == ["tokens", "1d", "2d"]
    with pytest.raises(AssertionError, match="declares the grids tokens, 1d, 2d, 3d"):
        grids_of_the_card(ImagesOnly)


def test_an_accepted_grid_must_be_declared() -> None:
    class Modest(FitNet):
        card = dataclasses.replace(FitNet.card, grids=("2d",))

    with pytest.raises(AssertionError, match="accepts tokens, 1d, 2d, 3d"):
        grids_of_the_card(Modest)


def test_a_declared_restriction_passes() -> None:
    class Declared(ImagesOnly):
        card = dataclasses.replace(FitNet.card, grids=("tokens", "1d", "2d"))

    grids_of_the_card(Declared)
