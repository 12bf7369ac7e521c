"""Mean of several teachers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs, Teacher, to_float32
from instil.roles import LazyOutputs
from instil.teachers.frozen import Frozen


class Ensemble(Teacher):
    """Teacher whose logits are the mean over its members.

    The outputs are ``logits`` (..., C), if the logits of all members have the same shape, and
    ``members``, the outputs of all members.

    Raises:
        ValueError: if there are no members, or ``mean`` has another value.
    """

    card = Card(
        "Ensemble of teachers",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="offline",
        algorithms=("multi-teacher",),
    )

    def __init__(
        self,
        members: Sequence[nn.Module],
        mean: Annotated[
            Literal["logits", "probabilities"],
            Doc(
                "what is averaged: the logits, or the probabilities (the logits are then the "
                "logarithm of their mean, as in Hinton et al. 2014, section 3)"
            ),
        ] = "logits",
    ):
        super().__init__()
        if not members:
            raise ValueError("teacher: an ensemble needs at least one member, got none")
        if mean not in ("logits", "probabilities"):
            raise ValueError(
                f"teacher.mean: unknown value. Expected logits or probabilities, got '{mean}'"
            )
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.mean = mean

    def missing_role_remedy(self) -> str:
        """End of the error for a role that an ensemble does not return."""
        return (
            "an ensemble returns the roles of its members apart, and their mean logits only if "
            "these have one shape; choose an objective that reads members, such as camkd"
        )

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        members = tuple(member(batch, grad=grad) for member in self.members)
        member_logits = [outputs["logits"] for outputs in members if "logits" in outputs]
        shapes = {logits.shape for logits in member_logits}
        # Foundation models may give different roles, which have no mean.
        if len(member_logits) < len(members) or len(shapes) > 1:
            return {"members": members}
        stacked = torch.stack([to_float32(logits) for logits in member_logits])
        log_size = torch.tensor(len(members)).log()
        if self.mean == "logits":
            logits = stacked.mean(0)
        else:
            # The logarithm of the mean probability, computed without leaving log space.
            logits = stacked.log_softmax(-1).logsumexp(0) - log_size
        return LazyOutputs({"logits": logits, "members": members}, lazy_prediction(logits, members))

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Select no roles: the logits of all members are always read."""


def lazy_prediction(logits: Tensor, members: Sequence[Outputs]) -> dict[str, Callable[[], Tensor]]:
    """Role ``prediction`` of combined logits, computed on access.

    Args:
        logits: combined logits (..., C).
        members: outputs of the members.

    Returns:
        ``{"prediction": function}`` if all members have this role, otherwise an empty dict.
    """
    if all("prediction" in outputs for outputs in members):
        return {"prediction": lambda: logits.argmax(-1)}
    return {}
