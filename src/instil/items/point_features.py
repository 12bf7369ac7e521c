"""Features of point sets as maps, and those of the teacher at the points of the student."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from instil.items.batch import Outputs
from instil.items.neighbours import interpolate_points


def align_point_features(
    student: Outputs, teacher: Outputs, roles: Collection[str] = ("features",)
) -> tuple[Outputs, Outputs]:
    """Bring features of point sets into the form that losses on features compare.

    Outputs with the role ``positions`` have features of points. Each level (N, P, C) becomes a map
    (N, C, 1, P). If both sides have positions, the levels and ``positions`` of the teacher become
    those at the points of the student: the two sides may see different points of one object.
    Outputs without ``positions`` do not change.

    Args:
        student: outputs of the student.
        teacher: outputs of the teacher, or of several teachers in ``members``.
        roles: roles that are read. Without ``features`` among them nothing changes.

    Returns:
        New outputs of student and teacher. Applied again, they stay the same.

    Raises:
        ValueError: for levels that fit no positions, and levels whose layout is ambiguous.
    """
    if "features" not in roles:
        return student, teacher
    if "members" in teacher:
        members = [align_point_features(student, member)[1] for member in teacher["members"]]
        teacher = teacher | {"members": tuple(members)}
    student_maps = _with_maps(student, "student")
    teacher_maps = _with_maps(teacher, "teacher")
    if "positions" not in student or "positions" not in teacher_maps:
        return student_maps, teacher_maps
    return student_maps, _at_positions(teacher_maps, student_maps["positions"])


def positions_of(positions: Any, level: int) -> Tensor:
    """Positions (N, P, 3) of a feature level; all levels may share one tensor."""
    tensor: Tensor = positions if isinstance(positions, Tensor) else positions[level]
    return tensor


def _levels(outputs: Outputs) -> tuple[Tensor, ...]:
    features = outputs["features"]
    return (features,) if isinstance(features, Tensor) else tuple(features)


def _with_maps(outputs: Outputs, side: str) -> Outputs:
    """Outputs with positions, and their feature levels as maps."""
    if "positions" not in outputs or "features" not in outputs:
        return outputs
    levels, positions = _levels(outputs), outputs["positions"]
    if not isinstance(positions, Tensor) and len(positions) != len(levels):
        raise ValueError(
            f"positions: the {side} has {len(positions)} of them for {len(levels)} levels of "
            "features. Expected one tensor, or one for each level"
        )
    maps = [
        _as_point_map(level, positions_of(positions, i).shape[1], f"features[{i}] of the {side}")
        for i, level in enumerate(levels)
    ]
    return outputs | {"features": tuple(maps)}


def _as_point_map(level: Tensor, num_points: int, name: str) -> Tensor:
    """A level (N, P, C) as a map (N, C, 1, P); vectors and maps as they are."""
    if level.ndim != 3:
        return level
    matches = [axis for axis in (1, 2) if level.shape[axis] == num_points]
    if matches == [1]:
        return level.mT.unsqueeze(2)
    shape = tuple(level.shape)
    if not matches:
        raise ValueError(
            f"{name}: its shape {shape} does not fit the role positions. Expected one vector for "
            f"each of the {num_points} points. Return positions for each level as a tuple"
        )
    raise ValueError(
        f"{name}: the layout of {shape} with {num_points} points is ambiguous. Expected a tap "
        "with a layout. Write path@sequence for (N, P, C), path@signal for (N, C, P)"
    )


def is_point_map(level: Tensor, positions: Tensor) -> bool:
    """Whether a level is a map (N, C, 1, P) of the points of ``positions`` (N, P, 3)."""
    return level.ndim == 4 and tuple(level.shape[2:]) == (1, positions.shape[1])


def _at_positions(teacher: Outputs, target: Any) -> Outputs:
    """Teacher outputs at the points of the student.

    Args:
        teacher: outputs with maps of points.
        target: role ``positions`` of the student.
    """
    if "features" not in teacher:
        return teacher | {"positions": target}
    levels, positions = _levels(teacher), teacher["positions"]
    if not isinstance(target, Tensor) and len(target) != len(levels):
        raise ValueError(
            f"positions: the student has points for {len(target)} levels of features, and the "
            f"teacher has {len(levels)} levels. Expected equal numbers, or one tensor of positions "
            "of the student"
        )
    aligned = [
        _interpolated(level, positions_of(positions, i), positions_of(target, i))
        for i, level in enumerate(levels)
    ]
    return teacher | {"features": tuple(aligned), "positions": target}


def _interpolated(level: Tensor, positions: Tensor, target: Tensor) -> Tensor:
    """A map (N, C, 1, P) of points at other positions (N, Q, 3), as (N, C, 1, Q)."""
    # Equal memory: both networks read the same points, and values need no comparison.
    is_same = positions.data_ptr() == target.data_ptr() and positions.shape == target.shape
    if is_same or not is_point_map(level, positions):
        return level
    values = interpolate_points(level.squeeze(2).mT, positions, target)
    return values.mT.unsqueeze(2)
