"""Name, version, metrics and test data of a search."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from instil.experiment.sample_digest import sample_digest
from instil.plan.result_names import metric_facts
from instil.search.study import Study


def search_facts(study: Study) -> dict[str, Any]:
    """Return what a search compares, under the same keys as in ``result.json``.

    Args:
        study: search whose finalists are chosen, so that its test split may be read.
    """
    experiment = study.trainer.experiment
    samples = study.trainer.lock.open().splits.test
    return {
        "name": experiment.recipe.name,
        "version": version("instil"),
        "headline": experiment.task.headline,
        "higher_is_better": study.higher_is_better,
        "metrics": metric_facts(experiment),
        "data": {"test": len(samples), "test_digest": sample_digest(samples)},
    }
