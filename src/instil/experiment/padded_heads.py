"""Tokens of the losses and records of a recipe, for heads that are padded to other sizes."""

from __future__ import annotations

from instil.core import Objectives, Outputs
from instil.experiment.experiment import Experiment
from instil.modules.data_tokens import DataTokens, without_padding
from instil.recipe.sections import Recipe


def leave_out_padding(experiment: Experiment, objectives: Objectives) -> None:
    """Let losses of student and teacher read the tokens of the tokenizers only.

    Args:
        experiment: experiment of the stage.
        objectives: objectives of the stage, which are changed.
    """
    if experiment.task.has_token_outputs:
        student = experiment.facts.get("vocabulary")
        objectives.selection = DataTokens(student, _num_teacher_tokens(experiment))


def recorded_tokens(experiment: Experiment, outputs: Outputs) -> Outputs:
    """Return teacher outputs without the padding of its head, to choose classes from.

    Args:
        experiment: experiment of the recording.
        outputs: outputs of the teacher.
    """
    if not experiment.task.has_token_outputs:
        return outputs
    roles = {"logits", "projection"} & set(outputs)
    return without_padding(outputs, roles, _num_teacher_tokens(experiment))


def _num_teacher_tokens(experiment: Experiment) -> int | None:
    """Number of tokens of the teachers' tokenizer; None if they have several."""
    recipe: Recipe = experiment.recipe
    counts = {experiment.facts_for(config).get("vocabulary") for config in recipe.teachers}
    if len(counts) > 1:
        return None
    return counts.pop() if counts else experiment.facts.get("vocabulary")
