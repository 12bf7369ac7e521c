"""What a net of two nets' blocks is made of: where samples may change over, by what, and what is switched there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor

from instil.core import Batch, Net, Outputs, Weighting

StagePairs = Literal["auto"] | list[list[int]]
"""``auto``, or [[student stage, teacher stage], ...], stages counted from 0, shallow to deep."""


def resolve_stage_pairs(spots: StagePairs, student: int, teacher: int) -> list[tuple[int, int]]:
    """The stages of each spot, of nets of so many stages; ``auto`` takes all where both have as many. Raises ValueError where they do not fit."""
    if spots == "auto":
        if student != teacher:
            raise ValueError(
                f"scheme.stage_pairs: the student has {student} stages and the teacher {teacher}; say which belong together"
            )
        return [(stage, stage) for stage in range(student)]
    fits = bool(spots) and all(len(pair) == 2 for pair in spots)
    for side, count in ((0, student), (1, teacher)):
        stages = [pair[side] for pair in spots] if fits else []
        fits = fits and stages == sorted(set(stages) & set(range(count)))
    if not fits:
        kind = f"[student stage, teacher stage] of {student} and {teacher} stages, from shallow to deep"
        raise ValueError(f"scheme.stage_pairs: {spots} is no list of {kind}")
    return [(int(mine), int(theirs)) for mine, theirs in spots]


class RoutingWeight(Weighting):
    """1 for the samples that are distilled at a spot, 0 for the others; times the objective's own sample weight where it has one."""

    needs: ClassVar = {"student": (), "teacher": (("spots",),)}

    def __init__(self, inner: Weighting | None):
        super().__init__()
        self.inner, self.spot = inner, -1

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], missing_role_hint: str | None = None
    ) -> None:
        super().resolve(student, teacher, missing_role_hint)
        if self.inner is not None:
            self.inner.resolve(student, teacher, missing_role_hint)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        switched: Tensor = teacher["spots"][:, self.spot]
        return switched if self.inner is None else switched * self.inner(student, teacher, batch)


def stage_paths(net: Net, side: str) -> list[str]:
    """The modules whose outputs are a net's ``features``; ValueError where they are not taps on outputs."""
    paths = net.taps.get("features", [])
    paths = [paths] if isinstance(paths, str) else paths
    if not paths or any(re.search(r"[\[:]", path) for path in paths):
        raise ValueError(
            f"scheme: spots are outputs of modules; name those of the {side} in taps.features, which is {paths or 'not there'}"
        )
    return paths
