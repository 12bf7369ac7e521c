"""What a net of two nets' blocks is made of: where samples may change over, by what, and what is switched there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import Batch, Net, Outputs, Weighting, full

Spots = Literal["auto"] | list[list[int]]
"""``auto``, or [[student stage, teacher stage], ...], stages counted from 0, shallow to deep."""


def places(spots: Spots, student: int, teacher: int) -> list[tuple[int, int]]:
    """The stages of each spot, of nets of so many stages; ``auto`` takes all where both have as many. Raises ValueError where they do not fit."""
    if spots == "auto":
        if student != teacher:
            raise ValueError(
                f"scheme.spots: the student has {student} stages and the teacher {teacher}; say which belong together"
            )
        return [(stage, stage) for stage in range(student)]
    fits = bool(spots) and all(len(pair) == 2 for pair in spots)
    for side, count in ((0, student), (1, teacher)):
        stages = [pair[side] for pair in spots] if fits else []
        fits = fits and stages == sorted(set(stages) & set(range(count)))
    if not fits:
        kind = f"[student stage, teacher stage] of {student} and {teacher} stages, from shallow to deep"
        raise ValueError(f"scheme.spots: {spots} is no list of {kind}")
    return [(int(mine), int(theirs)) for mine, theirs in spots]


class Gate(Weighting):
    """1 for the samples that are distilled at a spot, 0 for the others; times the objective's own sample weight where it has one."""

    needs: ClassVar = {"student": (), "teacher": (("spots",),)}

    def __init__(self, inner: Weighting | None):
        super().__init__()
        self.inner, self.spot = inner, -1

    def resolve(
        self, student: Iterable[str], teacher: Iterable[str], remedy: str | None = None
    ) -> None:
        super().resolve(student, teacher, remedy)
        if self.inner is not None:
            self.inner.resolve(student, teacher, remedy)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        switched: Tensor = teacher["spots"][:, self.spot]
        return switched if self.inner is None else switched * self.inner(student, teacher, batch)


class Bridge(nn.Module):
    """A stage of one net as a stage of the other: a convolution to its channels, on its grid; of tokens and vectors a linear map.

    Raises ValueError where one is a map and the other is not, or their numbers of tokens differ.
    """

    def __init__(self, source: Tensor, target: Tensor, kernel: int = 1):
        super().__init__()
        self.grid = (target.shape[2], target.shape[3]) if target.ndim == 4 else None
        if source.ndim != target.ndim or (
            self.grid is None and source.shape[1:-1] != target.shape[1:-1]
        ):
            raise ValueError(
                f"scheme.spots: stages {tuple(source.shape)} and {tuple(target.shape)} cannot take each other's place; leave them out"
            )
        axis = -1 if self.grid is None else 1
        widths = source.shape[axis], target.shape[axis]
        project = (
            nn.Linear(*widths)
            if self.grid is None
            else nn.Conv2d(*widths, kernel, padding=kernel // 2)
        )
        self.project = project.to(source.device, full(source).dtype)

    def forward(self, stage: Tensor) -> Tensor:
        made: Tensor = self.project(stage)
        if self.grid is None or tuple(made.shape[2:]) == self.grid:
            return made
        shrinks = made.shape[2] >= self.grid[0] and made.shape[3] >= self.grid[1]
        return (
            F.adaptive_avg_pool2d(made, self.grid)
            if shrinks
            else F.interpolate(made, self.grid, mode="bilinear")
        )


def averaged(stage: Tensor) -> Tensor:
    """The mean over positions, (N, C), of a map (N, C, H, W), tokens (N, L, C) or a vector (N, C)."""
    return stage.mean((2, 3)) if stage.ndim == 4 else stage.mean(1) if stage.ndim == 3 else stage


def stage_paths(net: Net, side: str) -> list[str]:
    """The modules whose outputs are a net's ``features``; ValueError where they are not taps on outputs."""
    paths = net.taps.get("features", [])
    paths = [paths] if isinstance(paths, str) else paths
    if not paths or any(re.search(r"[\[:]", path) for path in paths):
        raise ValueError(
            f"scheme: spots are outputs of modules; name those of the {side} in taps.features, which is {paths or 'not there'}"
        )
    return paths


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, and as it was afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
