"""Problems of a stage that do not stop its training, but make the result bad."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from instil.cards import at_progress, has_tag
from instil.core import Objective, Schedule, Scheme
from instil.plan.loss_probe import MAX_PROBED_STEPS, begins_later, lacks_items
from instil.schemes.bases.writer import GenerativeScheme

MIN_SHARE = 0.01
"""Share of the gradient below which an objective has almost no effect."""


def stage_problems(findings: Mapping[str, Any], scheme: Scheme) -> Iterator[str]:
    """Find problems of the losses and of the teacher.

    Args:
        findings: ``teacher_trained``, ``objectives`` and ``match`` of ``examine_stage``.
        scheme: prepared scheme of the stage.

    Yields:
        Sentences without a full stop, each with its recipe path.
    """
    for key, facts in findings["objectives"].items():
        name = key.partition("/")[2]
        path = f"objectives.{name}" if name in scheme.objectives else key
        problem = _loss_problem(key, facts, scheme, findings["teacher_trained"])
        if problem:
            yield f"{path}: {problem}"
    if scheme.teacher is not None and any(part.training for part in scheme.teacher.modules()):
        yield "teacher: a submodule is in train mode. Expected the whole teacher in eval mode"
    if _is_teacher_worse(findings, scheme):
        yield (
            "teacher: on the first batch it is right less often than the untrained student. Check "
            "the order of its classes and the normalization of its inputs"
        )


def _loss_problem(
    key: str, facts: Mapping[str, Any], scheme: Scheme, is_teacher_trained: bool
) -> str:
    """Problem of one loss, empty if it has none."""
    name = key.partition("/")[2]
    weight = scheme.objectives.weights.get(name, 1.0)
    objective = dict(scheme.objectives.named()).get(name)
    label_objective = objective if objective is not None and objective.items.labelled else None
    if lacks_items(key, facts, scheme):
        return _empty_loss_problem(scheme, objective)
    if facts["constant"]:
        return f"the loss is constant: it does not depend on learner '{facts['learner']}'"
    if not math.isfinite(facts["value"]):
        return f"the loss is {facts['value']}. Expected a finite value"
    if _lacks_gradient(facts, weight, scheme):
        return f"the gradient of this loss does not reach learner '{facts['learner']}'"
    # With average=batch, few labels are meant to have a small share of the gradient.
    averages_over_batch = label_objective is not None and label_objective.items.average == "batch"
    has_small_share = facts["share"] < MIN_SHARE and facts["gradient"] > 0
    if is_teacher_trained and has_small_share and not averages_over_batch:
        return (
            f"contributes only {100 * facts['share']:.2g} % of the gradient. Increase its weight, "
            "or remove the objective"
        )
    return ""


def _reads_earlier_steps(objective: Objective) -> bool:
    """Whether the items of a loss depend on what an earlier step has stored."""
    chosen = type(objective)
    stores = chosen.after_step is not Objective.after_step
    return stores and chosen.weight is not Objective.weight


def _lacks_gradient(facts: Mapping[str, Any], weight: float | Schedule, scheme: Scheme) -> bool:
    """Whether a loss has no gradient, although it is not 0 from the beginning."""
    is_minimal = facts["value"] == 0 and (begins_later(weight) or at_progress(weight, {}) > 0)
    return facts["gradient"] == 0 and scheme.card.source != "self" and not is_minimal


def _empty_loss_problem(scheme: Scheme, objective: Objective | None) -> str:
    """Problem of a loss without items in the first batches, empty if other steps have some."""
    # Losses of a scheme, such as those of rehearsal, may begin later.
    if objective is None or _reads_earlier_steps(objective):
        return ""
    message = (
        f"no item of the first {MAX_PROBED_STEPS} batches contributes to this loss. Expected at "
        "least one"
    )
    if not (isinstance(scheme, GenerativeScheme) and objective.items.labelled):
        return f"{message} labelled or valid item"
    # The first step may use generated text by chance; then another step has the labels.
    if scheme.uses_data_text:
        return ""
    return (
        f"{message} label, but all steps use generated text, which has none. Use the text of the "
        "data in some steps, or remove the objective"
    )


def _is_teacher_worse(findings: Mapping[str, Any], scheme: Scheme) -> bool:
    """Whether a trained teacher has a lower accuracy on the batch than the untrained student."""
    # A teacher that is trained together with the student is still untrained here.
    is_fixed = scheme.teacher is not None and not has_tag(scheme.teacher, "stateful")
    if not (is_fixed and findings["teacher_trained"]):
        return False
    match: Mapping[str, float] = findings["match"]
    return match.get("teacher_accuracy", 1.0) < match.get("student_accuracy", 0.0)
