"""Table of points on interleaved spirals, with columns that carry no information."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from typing_extensions import Doc

from instil.data.samples import TensorData
from instil.data.splits import Splits, splits


class Table(TensorData):
    """Rows of a table; ``features`` (N, F)."""

    noun = "row"


def two_spirals(
    rows: Annotated[int, Doc("number of rows of all splits")] = 3000,
    arms: Annotated[int, Doc("number of spirals, which are the classes")] = 3,
    noise: Annotated[float, Doc("standard deviation of the coordinates")] = 0.06,
    distractors: Annotated[int, Doc("number of columns without information")] = 4,
) -> Splits:
    """Draw points on spirals; polar angle and radius are easy for trees and hard for a line."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(rows) % arms
    radius = torch.rand(rows, generator=generator).sqrt()
    angle = 2 * math.pi * (1.25 * radius + label / arms)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    points += noise * torch.randn(rows, 2, generator=generator)
    columns = torch.cat([points, torch.randn(rows, distractors, generator=generator)], 1)
    classes = [f"spiral {index}" for index in range(arms)]
    facts = {"features": columns.shape[1]}
    order = torch.randperm(rows, generator=generator)
    table = Table({"features": columns[order]}, label[order], classes, facts)
    return splits({"train": table}, 0.15, 0.25)
