"""Several teachers as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, LazyOutputs, Outputs, Teacher, to_float32
from instil.teachers.frozen import Frozen


class Ensemble(Teacher):
    """The mean of its members' answers as ``logits`` (..., C), where all give as many, and all their outputs as ``members``.

    ``mean``: of the logits, or of the probabilities (the logits are then the log of that mean, as in Hinton et al. 2014, section 3).
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
        self, members: Sequence[nn.Module], mean: Literal["logits", "probabilities"] = "logits"
    ):
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        if mean not in ("logits", "probabilities"):
            raise ValueError(f"mean is logits or probabilities, not '{mean}'")
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.mean = mean

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        members = tuple(member(batch, grad=grad) for member in self.members)
        given = [outputs["logits"] for outputs in members if "logits" in outputs]
        if (
            len(given) < len(members) or len({each.shape for each in given}) > 1
        ):  # foundation models, each with an answer of its own kind
            return {"members": members}
        logits = torch.stack([to_float32(each) for each in given])
        among = torch.tensor(len(members)).log()
        answer = (
            logits.mean(0) if self.mean == "logits" else logits.log_softmax(-1).logsumexp(0) - among
        )
        return LazyOutputs({"logits": answer, "members": members}, likeliest(answer, members))

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """All of the members: their logits are always read."""


def likeliest(logits: Tensor, members: Sequence[Outputs]) -> dict[str, Callable[[], Tensor]]:
    """``prediction``, made where it is read, of what several nets say together, if they say such a thing themselves."""
    return (
        {"prediction": lambda: logits.argmax(-1)}
        if all("prediction" in outputs for outputs in members)
        else {}
    )
