"""Objectives of schemes that train on generated text and on the text of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from instil.cards import suggestion
from instil.core import Batch, Objective, Objectives, Scheme, Update


def split_objectives(
    scheme_name: str,
    objectives: Objectives | Mapping[str, Objective],
    student_text_objectives: Sequence[str],
) -> tuple[Objectives, Objectives]:
    """Split the objectives by the text that they use.

    Args:
        scheme_name: name for the error.
        objectives: all objectives.
        student_text_objectives: names of the objectives on the student's text.

    Returns:
        The objectives on the student's text, and all others.

    Raises:
        ValueError: for an unknown objective, or if the objectives have a balance.
    """
    every = objectives if isinstance(objectives, Objectives) else Objectives(objectives)
    unknown = [name for name in student_text_objectives if name not in every.weights]
    if unknown:
        raise ValueError(
            f"scheme.student_text_objectives: unknown objective '{unknown[0]}'."
            f"{suggestion(unknown[0], every.weights)}"
        )
    if every.balance is not None:
        raise ValueError(
            f"balance: {scheme_name} trains on two texts, whose losses a balance "
            "cannot weigh against each other. Leave balance out"
        )
    others = [name for name in every.weights if name not in student_text_objectives]
    return select_objectives(every, student_text_objectives), select_objectives(every, others)


def add_losses(update: Update, scheme: Scheme, objectives: Objectives, batch: Batch) -> None:
    """Add the losses of further objectives to an update, in place.

    Args:
        update: update of the student.
        scheme: runs student and teacher on the batch.
        objectives: objectives of the added losses; if there are none, no network runs.
        batch: batch with the text of these objectives.
    """
    if not objectives.weights:
        return
    # A label loss on the data does not need a forward pass of the teacher.
    teacher = scheme.teacher_outputs(batch) if objectives.reads("teacher") else {}
    further: Update = objectives(scheme.student(batch), teacher, batch)
    update.losses |= further.losses
    update.state_updates |= further.state_updates


def select_objectives(every: Objectives, names: Iterable[str]) -> Objectives:
    """Select some objectives, with their weights and schedules.

    Args:
        every: all objectives.
        names: names of the objectives to select.

    Returns:
        The selected objectives.
    """
    selected = list(names)
    part = Objectives(
        {name: objective for name, objective in every.named() if name in selected},
        {name: every.weights[name] for name in selected},
    )
    part.selection = every.selection
    modules = list(part.modules())
    # Schedules were extracted from the options of the whole set. The new container finds none, so
    # it takes over the entries of its modules.
    part.schedules = [
        entry for entry in every.schedules if any(entry[0] is module for module in modules)
    ]
    return part
