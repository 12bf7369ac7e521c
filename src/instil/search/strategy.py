"""Strategy and prior order that a search takes by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from instil.early_signals.gain_model import read_gain_model
from instil.experiment.experiment import Experiment
from instil.search.arms import Arm
from instil.search.planning import plan_search
from instil.search.state import Settings

MIN_CANDIDATES = 8
"""Smallest number of methods for which halving over seeds replaces halving over steps."""
DESCRIPTIONS = {
    "halving": "halving over steps",
    "seeds": "halving over seeds",
    "random": "random search",
    "exhaustive": "exhaustive search",
}


def resolve_settings(
    experiment: Experiment, settings: Settings, arms: Sequence[Arm], num_jobs: int
) -> Settings:
    """Return settings with the strategy and the prior that ``auto`` stands for.

    A search over methods is halving over seeds if the shipped model of gain knows the labels of the
    task, and the budget suffices for all steps of ``MIN_CANDIDATES`` methods. Without a budget, it
    may cost as much as halving over steps. All other searches are halving over steps. The model
    orders the methods of halving over seeds only.

    Args:
        experiment: experiment of the recipe.
        settings: settings of the search.
        arms: candidates and reference arms.
        num_jobs: number of processes.

    Raises:
        ValueError: if the budget is smaller than the smallest search.
    """
    is_known = experiment.task.kind in read_gain_model()["kinds"]
    if settings.strategy == "auto":
        can_have_seeds = is_known and settings.over == ("methods",) and settings.num_folds == 1
        over_seeds = _over_seeds(experiment, settings, arms, num_jobs) if can_have_seeds else None
        settings = over_seeds or replace(settings, strategy="halving")
    if settings.prior == "auto":
        has_model = is_known and settings.strategy == "seeds"
        settings = replace(settings, prior="model" if has_model else "none")
    return settings


def _over_seeds(
    experiment: Experiment, settings: Settings, arms: Sequence[Arm], num_jobs: int
) -> Settings | None:
    """Return the settings of halving over seeds; None if too few methods would take part."""
    over_steps = replace(settings, strategy="halving")
    has_budget = any((settings.max_steps, settings.max_runs, settings.max_seconds))
    if not has_budget:
        total_steps = plan_search(experiment, over_steps, arms, num_jobs).total_steps
        settings = replace(settings, max_steps=total_steps)
    over_seeds = replace(settings, strategy="seeds")
    try:
        count = plan_search(experiment, over_seeds, arms, num_jobs).rungs[0].num_candidates
    except ValueError:
        # The budget may suffice for halving over steps.
        return None
    return over_seeds if count >= MIN_CANDIDATES else None


def describe(settings: Settings) -> str:
    """Return the strategy and the prior of resolved settings as text.

    Example:
        >>> describe(Settings(strategy="seeds", prior="model"))
        'halving over seeds, methods in the order of their predicted gain'
    """
    order = ", methods in the order of their predicted gain" if settings.has_prior else ""
    return DESCRIPTIONS[settings.strategy] + order
