"""Early end of trials that are far behind."""

from __future__ import annotations

from collections.abc import Sequence

KEPT_PERCENT = 75.0
"""A trial ends early if it is worse than this percentage of its rivals at the same step."""

MIN_RIVALS = 4
"""Number of rivals below which no trial ends early."""

Curve = Sequence[Sequence[float]]
"""Steps and validation scores."""


class StopTrial(Exception):
    """End of a trial that is far behind."""


def is_behind(curve: Curve, rivals: Sequence[Curve], higher_is_better: bool) -> bool:
    """Whether a trial is worse than most rivals at its last evaluation.

    The rivals are finished before the trial starts, so that the decision does not depend on the
    order in which parallel trials end.

    Args:
        curve: evaluations of the trial.
        rivals: evaluations of earlier trials with the same number of steps.
        higher_is_better: direction of the metric.
    """
    if len(rivals) < MIN_RIVALS:
        return False
    import optuna

    # Early scores are a poor guide to the last one: half of the steps are always trained.
    warmup = int(rivals[0][-1][0]) // 2
    pruner = optuna.pruners.PercentilePruner(
        KEPT_PERCENT, n_startup_trials=MIN_RIVALS, n_warmup_steps=warmup
    )
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if higher_is_better else directions.MINIMIZE
    study = optuna.create_study(direction=direction, pruner=pruner)
    for rival in rivals:
        values = {int(step): score for step, score in rival}
        study.add_trial(optuna.trial.create_trial(value=rival[-1][1], intermediate_values=values))
    trial = study.ask()
    for step, score in curve:
        trial.report(score, int(step))
    return bool(trial.should_prune())
