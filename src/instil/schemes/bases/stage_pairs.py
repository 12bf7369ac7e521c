"""Pairs of stages at which samples can change from one network to another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor

from instil.core import Batch, Net, Outputs, Weighting

StagePairs = Literal["auto"] | list[list[int]]
"""``auto``, or [[student stage, teacher stage], ...], counted from 0, from shallow to deep."""


def resolve_stage_pairs(spots: StagePairs, student: int, teacher: int) -> list[tuple[int, int]]:
    """Resolve the option ``stage_pairs``.

    Args:
        spots: pairs of stages, or ``"auto"`` for all stages if both networks have the same number.
        student: number of stages of the student.
        teacher: number of stages of the teacher.

    Returns:
        Pairs (student stage, teacher stage).

    Raises:
        ValueError: if a stage does not exist, the pairs are not in ascending order, or ``"auto"``
            meets different numbers of stages.
    """
    if spots == "auto":
        if student != teacher:
            raise ValueError(
                f"scheme.stage_pairs: the student has {student} stages and the teacher {teacher}, "
                "so auto does not apply. Give a list of [student stage, teacher stage]"
            )
        return [(stage, stage) for stage in range(student)]
    fits = bool(spots) and all(len(pair) == 2 for pair in spots)
    for side, count in ((0, student), (1, teacher)):
        stages = [pair[side] for pair in spots] if fits else []
        # Equal only if the stages are in range, distinct and in ascending order.
        fits = fits and stages == sorted(set(stages) & set(range(count)))
    if not fits:
        raise ValueError(
            "scheme.stage_pairs: wrong pairs. Expected a list of [student stage, teacher stage] of "
            f"{student} and {teacher} stages, from shallow to deep, got {spots}"
        )
    return [(int(student_stage), int(teacher_stage)) for student_stage, teacher_stage in spots]


class RoutingWeight(Weighting):
    """Sample weight 1 for samples that are distilled at a spot, and 0 for the others.

    Args:
        inner: the objective's own weighting, whose weights are multiplied by these. None: none.
    """

    needs: ClassVar = {"student": (), "teacher": (("spots",),)}

    def __init__(self, inner: Weighting | None):
        super().__init__()
        self.inner = inner
        self.spot = -1

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        super().resolve(student, teacher, remedy)
        if self.inner is not None:
            self.inner.resolve(student, teacher, remedy)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        switched: Tensor = teacher["spots"][:, self.spot]
        return switched if self.inner is None else switched * self.inner(student, teacher, batch)


def stage_paths(net: Net, side: str) -> list[str]:
    """Return the paths of the modules whose outputs are a network's ``features``.

    Args:
        net: the network.
        side: ``"student"`` or ``"teacher"``, for the error message.

    Returns:
        One path per stage.

    Raises:
        ValueError: if there are no such taps, or they are not outputs of modules.
    """
    paths = net.taps.get("features", [])
    paths = [paths] if isinstance(paths, str) else paths
    if not paths or any(re.search(r"[\[:]", path) for path in paths):
        raise ValueError(
            "scheme: spots are outputs of modules. Expected paths of modules in "
            f"{side}.taps.features, got {paths or 'none'}"
        )
    return paths
