"""Result of one job that trains a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass
class TrainedModel:
    """A trained network with its metrics.

    Attributes:
        net: the network.
        test: metrics on the test split.
        validation: metrics on the validation split.
        details: data of plots and examples in the report.
        seconds: time of its training.
        cost: size and latency where they cannot be measured on ``net``; else None.
        privacy_cost: privacy loss of its answers for training samples; empty without privacy.
        origin: run folder that trained it, if not the one that reads it.
        latency: latency of one sample once it has been measured.
    """

    net: nn.Module
    test: dict[str, float]
    validation: dict[str, float]
    details: dict[str, Any]
    seconds: float
    cost: dict[str, Any] | None = None
    privacy_cost: dict[str, Any] = field(default_factory=dict)
    origin: str = ""
    latency: dict[str, Any] | None = None


def origins(
    seeds: Sequence[int], arms: Mapping[str, Sequence[TrainedModel]]
) -> dict[str, dict[str, str]]:
    """Return the run folders of students that other runs have trained: arm -> seed -> folder.

    Args:
        seeds: seeds of the run.
        arms: students by arm, in the order of the seeds.
    """
    folders: dict[str, dict[str, str]] = {}
    for name, of_seeds in arms.items():
        for seed, student in zip(seeds, of_seeds, strict=False):
            if student.origin:
                folders.setdefault(name, {})[str(seed)] = student.origin
    return folders
