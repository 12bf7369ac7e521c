"""Checks of a task's objectives and classes against the data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, zip_longest

from instil.core import Objective, Objectives, Outputs
from instil.data.samples import Samples

KINDS = {
    "single": "single-label",
    "multi": "multi-label",
    "binary": "binary",
    "real": "real-valued",
    "token": "token-by-token",
    "none": "unlabelled",
    "sequence": "sequence-labelled",
    "boxes": "box-labelled",
    "graded": "graded",
}
"""Kinds of labels, each with the adjective for messages."""
FORMS_OF_THEIR_OWN = ("none", "sequence", "boxes", "graded")
"""Kinds whose labels only the objectives made for them read; those without labels fit all."""
TEXT_TASKS = ("language", "text_classification")
"""Tasks whose objectives leave out the padding of hidden states."""
WHOLE_ROLES = {"features", "embedding"}
"""Roles with all positions of a sample, also those that do not count."""
SHOWN_CLASSES = 5
"""Largest number of class names in a message."""


def check_objectives(
    objectives: Mapping[str, Objective] | Objectives, kind: str, title: str
) -> None:
    """Check that objectives are defined for a kind of labels.

    Args:
        objectives: objectives by name.
        kind: kind of the labels, a key of ``KINDS``.
        title: title of the task, for the message.

    Raises:
        ValueError: if an objective is undefined, or needs ``multi_label`` for these labels.
    """
    problem = f"{KINDS[kind]} {title}"
    for name, objective in objectives.items():
        assert isinstance(objective, Objective)
        class_name = type(objective).__name__
        supported = objective.card.labels
        is_label_free = kind in FORMS_OF_THEIR_OWN and not objective.items.labelled
        if kind not in supported and not is_label_free:
            raise ValueError(
                f"objectives.{name}: {class_name} is undefined for {problem} "
                f"(it is defined for {', '.join(supported)})"
            )
        if kind == "multi" and getattr(objective, "multi_label", True) is False:
            raise ValueError(
                f"objectives.{name}: set multi_label: true; without it, {class_name} is not "
                f"defined for {problem}"
            )


def check_token_objectives(
    objectives: Mapping[str, Objective] | Objectives, title: str, kinds: Sequence[str] = ()
) -> None:
    """Check that objectives are defined for one label per token.

    Args:
        objectives: objectives by name.
        title: title of the task, for the message.
        kinds: further kinds of labels of the task.

    Raises:
        ValueError: if an objective is undefined.
    """
    for name, objective in objectives.items():
        assert isinstance(objective, Objective)
        # A token is an item with one class, so objectives of single labels are defined too.
        if not {"single", *kinds} & set(objective.card.labels):
            raise ValueError(
                f"objectives.{name}: {type(objective).__name__} is undefined for {title}, where "
                "every token has one label"
            )


def check_compares_tokens(
    objectives: Mapping[str, Objective] | Objectives,
    whole_roles: Collection[str] = WHOLE_ROLES,
    tasks: Collection[str] = TEXT_TASKS,
) -> None:
    """Check that no objective compares the features of whole texts, where padding would count.

    Args:
        objectives: objectives by name.
        whole_roles: roles that have a row for each token.
        tasks: tasks whose objectives leave out the padding.

    Raises:
        ValueError: for an objective on features or embeddings that is not made for texts.
    """
    for name, objective in objectives.items():
        assert isinstance(objective, Objective)
        roles = set(chain.from_iterable(chain.from_iterable(objective.needs.values())))
        is_made_for_texts = bool(set(tasks) & set(objective.card.tasks))
        if objective.items.per_sample and not is_made_for_texts and roles & set(whole_roles):
            raise ValueError(
                f"objectives.{name}: {type(objective).__name__} compares whole samples, and "
                "features and embeddings of a text have a row for each token, also for padding. "
                "Expected a loss on hidden states, such as distilbert or tinybert, or one whose "
                f"card has the task {' or '.join(tasks)}"
            )


def check_real_objectives(objectives: Mapping[str, Objective] | Objectives, title: str) -> None:
    """Check that objectives of logits or labels are defined for real numbers.

    Args:
        objectives: objectives by name. Those that read features only fit any labels.
        title: title of the task, for the message.

    Raises:
        ValueError: if an objective is undefined.
    """
    checked: dict[str, Objective] = {}
    for name, objective in objectives.items():
        if isinstance(objective, Objective) and _reads_predictions(objective):
            checked[name] = objective
    check_objectives(checked, "real", title)


def _reads_predictions(objective: Objective) -> bool:
    if objective.items.labelled:
        return True
    return any("logits" in roles for roles in chain.from_iterable(objective.needs.values()))


def check_has_label(samples: Samples, name: str, what: str = "label") -> None:
    """Check that a sample of a split can be evaluated.

    Args:
        samples: samples of the split.
        name: name of the split, for the message.
        what: name of a label, for the message.

    Raises:
        ValueError: if no sample has a label, or a box where labels are boxes.
    """
    if len(samples) and not samples.has_target.any():
        raise ValueError(
            f"none of the {len(samples)} {samples.noun}s of the {name} data has a {what}. Expected "
            f"at least one with a {what}. Change the files, or the share {name}"
        )


def check_class_names(
    outputs: Outputs, classes: Sequence[str], names: Sequence[str] | None, whose: str
) -> None:
    """Check that the classes of a network are those of the data.

    Args:
        outputs: outputs of the network; without ``logits`` nothing is checked.
        classes: class names of the data; without any nothing is checked.
        names: class names of the network; None if it has none.
        whose: name of the network in the message.

    Raises:
        ValueError: if the number, the names or the order of the classes differ.
    """
    if "logits" not in outputs or not classes:
        return
    num_logits = outputs["logits"].shape[-1]
    if num_logits != len(classes):
        raise ValueError(
            f"the {whose} gives {num_logits} logits, the data has {len(classes)} classes: "
            f"{_first_names(classes)}"
        )
    check_class_order(classes, names, whose)


def check_class_order(
    classes: Sequence[str], names: Sequence[str] | None, whose: str, noun: str = "class"
) -> None:
    """Check that the class names of a network are those of the data, in the same order.

    Args:
        classes: class names of the data.
        names: class names of the network; None if it has none.
        whose: name of the network in the message.
        noun: kind of a class in the message.

    Raises:
        ValueError: if names or order differ.
    """
    if names is None or tuple(names) == tuple(classes):
        return
    pairs = enumerate(zip_longest(names, classes, fillvalue=""))
    index, own, other = next((i, own, other) for i, (own, other) in pairs if own != other)
    relation = "in another order" if sorted(names) == sorted(classes) else "not the same"
    raise ValueError(
        f"the classes of {whose} and data are {relation}: {noun} {index} is '{own}' for the "
        f"{whose} and '{other}' in the data"
    )


def _first_names(classes: Sequence[str]) -> str:
    more = " ..." if len(classes) > SHOWN_CLASSES else ""
    return ", ".join(classes[:SHOWN_CLASSES]) + more
