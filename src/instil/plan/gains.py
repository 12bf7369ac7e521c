"""Gains of the distilled student over the other arms of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from instil.experiment.experiment import Experiment
from instil.plan.statistics import paired_gain
from instil.plan.trained_model import TrainedModel

ArmsByName = Mapping[str, Sequence[TrainedModel]]
"""Arm name -> finished arms in the order of the seeds; it must have the key ``distilled``."""


def gains_over(experiment: Experiment, arms: ArmsByName, metric: str) -> dict[str, Any]:
    """Return the gain of the distilled student over each other arm, on the seeds that both have.

    Args:
        experiment: experiment of the whole recipe.
        arms: finished arms.
        metric: metric with the direction of the headline metric.
    """
    gains = {}
    for name, of_seeds in arms.items():
        pairs = list(zip(arms["distilled"], of_seeds, strict=False))
        if name == "distilled" or not pairs:
            continue
        treated = [distilled.test[metric] for distilled, _ in pairs]
        control = [other.test[metric] for _, other in pairs]
        gains[name] = paired_gain(treated, control, experiment.task.higher_is_better)
    return gains
