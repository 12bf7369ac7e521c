"""Contract about the grids of features that an objective accepts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from instil.cards.card import Grid
from instil.core import Batch, Objective, Objectives, Outputs
from instil.testing.trials import Trial, loss_and_gradient, sample_trial

GRIDS: tuple[Grid, ...] = ("tokens", "1d", "2d", "3d")
"""Grids of features without positions."""


def reads_features(objective: Objective) -> bool:
    """Whether an objective reads feature levels of a side."""
    return "features" in itertools.chain(*objective.reads.values())


def grid_trial(objective: Objective, grid: Grid, seed_rows: int = 8) -> Trial:
    """Return sample outputs whose feature levels lie on another grid.

    Args:
        objective: objective, whose first task decides the other outputs.
        grid: ``tokens`` (N, L, C), ``1d`` (N, C, 1, T), ``2d`` (N, C, H, W), ``3d``
            (N, C, T, H, W), or ``points`` for the outputs as they are.
        seed_rows: number of rows.
    """
    student, teacher, batch = sample_trial(objective, seed_rows)
    return _outputs_on(student, grid), _outputs_on(teacher, grid), _batch_on(batch, grid)


def _outputs_on(outputs: Outputs, grid: Grid) -> Outputs:
    """Outputs with all levels, and logits of pixels, on another grid."""
    changed = dict(outputs)
    if "features" in outputs:
        changed["features"] = tuple(level_on(level, grid) for level in outputs["features"])
    if "members" in outputs:
        changed["members"] = tuple(_outputs_on(member, grid) for member in outputs["members"])
    logits = outputs["logits"]
    if logits.ndim == 4 and grid == "1d":
        changed["logits"] = logits.flatten(1, 2).unsqueeze(1)
    if logits.ndim == 4 and grid == "3d":
        changed["logits"] = logits.unsqueeze(1) + logits.unsqueeze(2)
    return changed


def level_on(level: Tensor, grid: Grid) -> Tensor:
    """A level (N, C, S, S) or (N, C, T, S, S), or vectors (N, C) as they are, on another grid."""
    if level.ndim == 5:
        if grid == "3d":
            return level
        level = level[:, :, 0]
    if level.ndim == 2 or grid in ("2d", "points"):
        return level
    if grid == "tokens":
        return level.flatten(2).mT.contiguous()
    if grid == "1d":
        return level.flatten(2).unsqueeze(2)
    return level.unsqueeze(2) + level.transpose(2, 3).unsqueeze(3)


def _batch_on(batch: Batch, grid: Grid) -> Batch:
    label = batch["label"]
    if label.ndim == 3 and grid == "1d":
        return batch | {"label": label.flatten(1).unsqueeze(1)}
    if label.ndim == 3 and grid == "3d":
        return batch | {"label": torch.stack([label] * label.shape[1], 1)}
    return batch


def accepts(make: Callable[[], Objective], grid: Grid) -> bool:
    """Whether an objective trains on features of a grid.

    Args:
        make: returns a new objective.
        grid: grid of the features of both sides.

    Returns:
        False if it refuses the features with a ``ValueError``.

    Raises:
        AssertionError: for a loss or a gradient that is not finite, or no gradient.
    """
    torch.manual_seed(0)
    objective = make()
    student, teacher, batch = grid_trial(objective, grid)
    try:
        with torch.no_grad():
            Objectives({"it": objective}).build(student, teacher)
        loss, grads = loss_and_gradient(objective.train(), student, teacher, batch)
    except ValueError:
        return False
    assert torch.isfinite(loss), f"the loss on {grid} features is {loss}"
    assert all(torch.isfinite(grad).all() for grad in grads.values()), (
        f"a gradient on {grid} features is not finite"
    )
    assert any(grad.abs().sum() > 0 for grad in grads.values()), (
        f"no gradient reaches the student on {grid} features"
    )
    return True


def grids_of_the_card(make: Callable[[], Objective]) -> None:
    """Check that an objective on features accepts the grids on its card, and no others.

    Args:
        make: returns a new objective.
    """
    objective = make()
    if not reads_features(objective):
        return
    if objective.card.grids == ("points",):
        assert accepts(make, "points"), "the card declares points, and the objective refuses them"
        return
    accepted = tuple(grid for grid in GRIDS if accepts(make, grid))
    declared = objective.card.grids
    assert set(accepted) == set(declared), (
        f"the card declares the grids {', '.join(declared)}, and the objective accepts "
        f"{', '.join(accepted)}"
    )
