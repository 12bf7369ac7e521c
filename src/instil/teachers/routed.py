"""Of several teachers, one for each sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, LazyOutputs, Outputs, Teacher, closest, to_float32
from instil.teachers.ensemble import likeliest
from instil.teachers.frozen import Frozen

By = Literal["entropy", "label", "domain"]


class Routed(Teacher):
    """The answer of one member for each item: its ``logits`` (..., C), and as ``member`` (...) which it was; all outputs as ``members``.

    ``by``: the member whose answer has the least entropy; the one that gives the label the largest probability (least entropy where there is no
    label); or the one whose number the batch's ``domain`` (N,) holds.
    """

    card = Card(
        "Adaptive knowledge distillation based on entropy",
        "https://doi.org/10.1109/ICASSP40776.2020.9054698",
        "ICASSP",
        2020,
        source="offline",
        algorithms=("multi-teacher", "adaptive"),
        deviations="One member answers, where the paper weighs all by their entropy; the choice by label or domain is not in it.",
    )

    def __init__(self, members: Sequence[nn.Module], by: By = "entropy"):
        super().__init__()
        if not members:
            raise ValueError("routed teachers need at least one member")
        if by not in ("entropy", "label", "domain"):
            raise ValueError(
                f"by: a member is not chosen by '{by}'; {closest(by, ('entropy', 'label', 'domain'))}"
            )
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.by = by

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        members = tuple(member(batch, grad=grad) for member in self.members)
        if missing := [number for number, outputs in enumerate(members) if "logits" not in outputs]:
            raise ValueError(
                f"member {missing[0]} gives {', '.join(members[missing[0]])}, and no logits to choose from"
            )
        logits = torch.stack([to_float32(outputs["logits"]) for outputs in members])
        chosen = self.choose(logits.detach(), batch)
        index = chosen[None, ..., None].expand(1, *logits.shape[1:])
        answer = logits.gather(0, index).squeeze(0)
        return LazyOutputs(
            {"logits": answer, "member": chosen, "members": members}, likeliest(answer, members)
        )

    def choose(self, logits: Tensor, batch: Batch) -> Tensor:
        """Which member answers each item: logits (K, ..., C) give (...). Raises ValueError for a batch without the key that decides."""
        if self.by == "entropy":
            return surest(logits)
        if self.by not in batch:
            raise ValueError(
                f"members are chosen by '{self.by}', which the batch has not; its keys are {', '.join(batch)}"
            )
        if self.by == "domain":
            domain: Tensor = batch["domain"]
            return domain.view(-1, *[1] * (logits.ndim - 3)).expand(logits.shape[1:-1])
        label: Tensor = batch["label"]
        index = label.clamp_min(0).expand(logits.shape[:-1]).unsqueeze(-1)
        rightest = logits.log_softmax(-1).gather(-1, index).squeeze(-1).argmax(0)
        return torch.where(label != UNLABELLED, rightest, surest(logits))

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """All of the members: their logits are always read."""


def surest(logits: Tensor) -> Tensor:
    """The number of the member of least entropy: logits (K, ..., C) give (...)."""
    number: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1).argmin(0)
    return number
