"""Vocabulary of losses on tokens, for heads that are padded to different sizes."""

from __future__ import annotations

from instil.core import Objectives
from instil.experiment.experiment import Experiment
from instil.objectives.bases.token_objective import TokenObjective


def set_num_data_tokens(experiment: Experiment, objectives: Objectives) -> None:
    """Set the number of tokens of the data in each loss on tokens.

    A loss uses it where the heads of student and teacher differ in size: both have the tokens of
    the data, and the rest of each head is padding. A teacher with its own tokenizer has other
    tokens.

    Args:
        experiment: experiment of the stage.
        objectives: objectives of the stage, which are changed.
    """
    num_tokens = experiment.facts.get("vocabulary")
    if num_tokens is None or any(config.tokenizer for config in experiment.recipe.teachers):
        return
    for _, objective in objectives.named():
        if isinstance(objective, TokenObjective):
            objective.num_data_tokens = num_tokens
