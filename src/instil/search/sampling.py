"""Suggestions of options by Optuna, from the results of earlier trials."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

from instil.recipe import fingerprint
from instil.search.arms import Arm

Sampler = Literal["tpe", "random"]
NUM_STARTUP_TRIALS = 4
"""Trials of an arm before TPE replaces random samples."""


def require_optuna() -> None:
    """Check that Optuna is installed.

    Raises:
        ImportError: if it is not.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            "search: the package optuna is missing. Expected the extra search. Install it "
            "with: pip install 'instil[search]'"
        ) from error
    optuna.logging.set_verbosity(logging.WARNING)


def draw_arms(arms: Sequence[Arm], size: int, has_options: bool, seed: int) -> list[Arm]:
    """Draw arms for a random search.

    Args:
        arms: arms to draw from.
        size: number of trainings.
        has_options: whether the trainings of an arm differ in their options. Without options an
            arm is drawn at most once: a second training would repeat the first one.
        seed: seed of the search.
    """
    generator = random.Random(seed)
    if has_options and arms:
        return generator.choices(arms, k=size)
    return generator.sample(arms, min(size, len(arms)))


def suggest(
    arm: Arm,
    results: Sequence[dict[str, Any]],
    num_suggestions: int,
    higher_is_better: bool,
    sampler: Sampler,
    seed: int,
) -> list[dict[str, Any]]:
    """Return new values of the dimensions of an arm.

    The first suggestion of TPE has the published weights and the other defaults, if no trial had
    them. The suggestions depend on the arguments only, so that a study that continues gets them
    again.

    Args:
        arm: the arm.
        results: results of all finished trials of the search.
        num_suggestions: number of suggestions.
        higher_is_better: direction of the metric.
        sampler: sampler of Optuna.
        seed: seed of the search.
    """
    if not arm.dimensions or not num_suggestions:
        return []
    import optuna

    finished = [result for result in results if result["arm"] == arm.name]
    sampler_seed = int(fingerprint(arm.name, seed, len(finished))[:8], 16)
    optuna_sampler: Any = optuna.samplers.RandomSampler(seed=sampler_seed)
    if sampler == "tpe":
        optuna_sampler = optuna.samplers.TPESampler(
            seed=sampler_seed, n_startup_trials=NUM_STARTUP_TRIALS
        )
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if higher_is_better else directions.MINIMIZE
    study = optuna.create_study(direction=direction, sampler=optuna_sampler)
    distributions = {one.path: one.distribution() for one in arm.dimensions}
    for result in finished:
        value = _relative_score(result, results)
        if value is not None:
            study.add_trial(
                optuna.trial.create_trial(
                    params=result["params"], distributions=distributions, value=value
                )
            )
    suggestions = []
    start = arm.published_start()
    trained = [result["params"] for result in finished]
    if sampler == "tpe" and start is not None and start not in trained:
        suggestions.append(start)
    for _ in range(num_suggestions - len(suggestions)):
        params = study.ask(distributions).params
        suggestions.append({one.path: one.rounded(params[one.path]) for one in arm.dimensions})
    return suggestions


def _relative_score(result: dict[str, Any], results: Sequence[dict[str, Any]]) -> float | None:
    """Return a score minus the median of its round: rounds differ in the number of steps."""
    if result["score"] is None:
        return None
    scores = [other["score"] for other in results if other["round"] == result["round"]]
    return float(result["score"] - median(score for score in scores if score is not None))
