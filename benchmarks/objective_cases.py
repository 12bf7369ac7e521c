"""Generated cases of ``losses.py``: every objective of the catalogue on sample outputs.

The inputs follow from the objective's needs and card, so a new method is measured without another
line. ``loss_cases.py`` adds comparisons with other formulations.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Inputs

import torch
from torch import Tensor

from instil import catalogue
from instil.core import Objectives
from instil.testing.linked import link_if_needed
from instil.testing.structures import leaves, map_structure, named_tensors
from instil.testing.trials import build_objective, sample_trial

NUM_SAMPLES = 128
"""Number of samples. The cost of some losses is cubic in it."""
PREFIX = "objective "


def objective_cases() -> list[str]:
    """Return the names of the generated cases, such as ``objective dkd``."""
    return [f"{PREFIX}{name}" for name in catalogue.names("objective")]


def objective_case(
    case: str, count: int = NUM_SAMPLES, device: str = "cpu"
) -> tuple[Inputs, Callable[[], Tensor]]:
    """Build an objective and its inputs.

    Args:
        case: name of a generated case.
        count: number of samples.
        device: device of the tensors.

    Returns:
        The inputs, with an attribute for each student tensor that the objective reads, and a
        function that computes the loss.
    """
    objective = build_objective(catalogue.find("objective", case.removeprefix(PREFIX)))
    student, teacher, batch = (
        map_structure(part, lambda tensor: tensor.to(device))
        for part in sample_trial(objective, count)
    )
    student = leaves(student)
    read = {role: student[role] for role in objective.reads["student"]}
    sample = Inputs(
        size=f"{count} samples",
        student=torch.empty(0, device=device),
        **{name.replace(".", "_"): tensor for name, tensor in named_tensors(read)},
    )
    objectives = Objectives({"loss": objective}).to(device)

    def run() -> Tensor:
        return objectives(*link_if_needed(objective, student, teacher), batch).losses["loss"]

    return sample, run
