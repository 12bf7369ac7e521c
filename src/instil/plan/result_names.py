"""Names, colors and directions of a result, so that reports need no plugin that defines them."""

from __future__ import annotations

from typing import Any

from instil import catalogue
from instil.experiment.experiment import Experiment


def metric_facts(experiment: Experiment) -> dict[str, Any]:
    """Title, direction and form of each metric of the recipe.

    Args:
        experiment: experiment of the whole recipe.
    """
    return {
        name: {
            "title": metric.card.title,
            "higher_is_better": metric.higher_is_better,
            "is_fraction": metric.is_fraction,
        }
        for name, metric in experiment.task.metrics.items()
    }


def baseline_facts(name: str) -> dict[str, str | None]:
    """Names and color of a baseline.

    Args:
        name: name of the baseline.
    """
    kind = catalogue.find("baseline", name)
    return {"title": kind.display_name, "noun": kind.noun, "color": kind.color}
