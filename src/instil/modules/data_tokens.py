"""Selection of the tokens of a tokenizer, for heads with rows beyond them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from torch import Tensor

from instil.core import Objective
from instil.items import Batch, Outputs
from instil.roles import RoleConsumer

PADDED_ROLES = frozenset({"logits", "projection", "head", "members"})
"""Roles with an entry for each row of a head."""
TOKEN_ROLES = PADDED_ROLES | {"top", "sampled"}
"""Roles over tokens. Recorded classes have no padding, which was left out before their choice."""


class DataTokens:
    """Selects the tokens of the tokenizers; the other rows of the heads are padding.

    It is the ``selection`` of ``Objectives``. A loss that reads tokens of the teacher compares the
    same tokens on both sides, for heads that are padded to different sizes, and for recorded
    classes. A loss that reads none, such as the cross-entropy of labels, gets the whole head of the
    student: it makes padding unlikely.

    Args:
        student: number of tokens of the student's tokenizer. None: all rows of its head.
        teacher: number of tokens of the teacher's tokenizer. None: all rows of its head.

    Example:
        >>> import torch
        >>> from instil import KD
        >>> select = DataTokens(5, 5)
        >>> outputs = {"logits": torch.zeros(2, 8)}, {"logits": torch.zeros(2, 6)}
        >>> student, teacher, _ = select(KD(), *outputs, {})
        >>> student["logits"].shape == teacher["logits"].shape
        True
    """

    def __init__(self, student: int | None, teacher: int | None):
        self.student = student
        self.teacher = teacher

    def __call__(
        self, objective: Objective, student: Outputs, teacher: Outputs, batch: Batch
    ) -> tuple[Outputs, Outputs, Batch]:
        """Return the outputs and the batch that a loss reads.

        Args:
            objective: loss that reads them.
            student: student outputs; empty if only the batch is needed.
            teacher: teacher outputs; empty if only the batch is needed.
            batch: batch of the step.
        """
        teacher_roles = _token_roles(objective, "teacher")
        # The option of a loss replaces the number of tokens.
        if not teacher_roles or getattr(objective, "vocabulary", None) is not None:
            return student, teacher, batch
        student_roles = _token_roles(objective, "student")
        return (
            without_padding(student, student_roles, self.student),
            without_padding(teacher, teacher_roles, self.teacher),
            batch,
        )


def without_padding(outputs: Outputs, roles: Collection[str], num_tokens: int | None) -> Outputs:
    """Return outputs without the rows of a head beyond the tokens.

    Args:
        outputs: outputs of a language model.
        roles: roles to change. The others are not computed.
        num_tokens: number of tokens. None: the outputs are unchanged.
    """
    if num_tokens is None:
        return outputs
    changed = {}
    for role in PADDED_ROLES.intersection(roles):
        if role in outputs:
            changed[role] = _first_tokens(outputs[role], role, num_tokens)
    return outputs | changed if changed else outputs


def _first_tokens(value: Any, role: str, num_tokens: int) -> Any:
    """The first tokens of one role."""
    if role == "members":
        return tuple(without_padding(part, part.keys(), num_tokens) for part in value)
    if role == "logits":
        return value[..., :num_tokens]
    if role == "head":
        return tuple(parameter[:num_tokens] for parameter in value)
    return _first_rows(value, num_tokens)


def _first_rows(projection: Any, num_tokens: int) -> Any:
    """Projection with the first rows of the head."""
    low_rank = projection.low_rank
    bias: Tensor | None = projection.bias
    return dataclasses.replace(
        projection,
        weight=projection.weight[:num_tokens],
        bias=None if bias is None else bias[:num_tokens],
        low_rank=None if low_rank is None else (low_rank[0], low_rank[1][:num_tokens]),
    )


def _token_roles(objective: Objective, side: str) -> set[str]:
    """Roles over tokens that a loss or its sample weight reads on one side."""
    consumers: list[RoleConsumer] = [objective]
    if objective.sample_weight is not None:
        consumers.append(objective.sample_weight)
    roles = set().union(*(one.reads.get(side, ()) for one in consumers))
    return roles & TOKEN_ROLES
