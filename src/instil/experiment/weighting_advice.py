"""Weightings of a recipe that were worse than a simpler one in measurements."""

from __future__ import annotations

from instil.core import Objective
from instil.data.labels import num_labelled
from instil.data.streams import Stream
from instil.experiment.experiment import Experiment
from instil.recipe import build_objectives

FEW_LABELS = 0.2
"""Labelled share up to which averaging a label loss over labelled items is known to be worse.

Measured at 0.01 and 0.1; at 1 both averages are the same.
"""


def weighting_advice(stage: Experiment) -> list[str]:
    """Return one sentence for each weighting of a stage that is known to be worse.

    Args:
        stage: experiment of one stage of the recipe.

    Returns:
        Sentences with the recipe path and the measurement; empty if the recipe has none of these
        weightings.
    """
    samples = stage.train_data(stage.recipe.seeds[0])
    if isinstance(samples, Stream):
        return []
    num_labels = num_labelled(samples)
    objectives = dict(build_objectives(stage.recipe.objectives).named())
    learns_without_labels = any(not objective.items.labelled for objective in objectives.values())
    if not learns_without_labels or not 0 < num_labels <= FEW_LABELS * len(samples):
        return []
    counts = f"{num_labels:,} labels of {len(samples):,} {samples.noun}s"
    return [
        f"objectives.{name}.average: labelled gives {counts} the weight of all of them. "
        "With 1 and 10 % of the labels and a teacher that knows all, that was below pseudo-labels "
        "in 12 of 14 cases, average: batch clearly in none (docs/defaults.md). Use average: batch"
        for name, objective in objectives.items()
        if _is_label_loss(objective) and objective.items.average == "labelled"
    ]


def _is_label_loss(objective: Objective) -> bool:
    """Whether the loss compares only student and label, and its average can be chosen."""
    return (
        objective.items.labelled
        and "average" in vars(objective)
        and not any(objective.needs["teacher"])
    )
