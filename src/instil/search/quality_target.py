"""Validation score of a student that keeps the share of the teacher's quality, during a search."""

from __future__ import annotations

from instil.experiment.offloaded_teachers import move_teacher
from instil.experiment.training_options import autocast_context
from instil.plan.evaluation import Evaluator
from instil.search.student_outcome import target_score
from instil.search.study import Study


def quality_target(study: Study) -> float | None:
    """Return the score of a student that keeps the share, such that higher is better.

    Args:
        study: search over students.

    Returns:
        The score; None if the teacher has none.
    """
    score = _teacher_score(study)
    target = target_score(score, study.state.settings.keep, study.higher_is_better)
    return target if target is None or study.higher_is_better else -target


def _teacher_score(study: Study) -> float | None:
    """Return the headline metric of the teacher on the whole validation split.

    The signals have it for a few hundred samples at most, but the scores of the students that it
    is compared with are of all samples.
    """
    if study.state.signals.get("teacher_score") is None:
        return None
    stage = study.trainer.experiment.stages[0]
    evaluator = Evaluator(stage)
    train = stage.recipe.train
    with autocast_context(train):
        teacher = move_teacher(study.trainer.teacher(stage, evaluator), train)
        metrics, _ = evaluator.evaluate(teacher, "validation")
    return metrics.get(stage.task.headline)
