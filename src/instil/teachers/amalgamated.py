"""Several teachers, each of which knows some of the classes, as one that knows all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from instil.core import Batch, Card, Outputs, Teacher, closest, to_float32
from instil.teachers.frozen import Frozen


class Amalgamated(Teacher):
    """The members' ``logits`` side by side, each in the place of its class: (..., C) for the C ``class_names``; all outputs as ``members``.

    ``member_class_names`` are the classes of each member, in the order of its logits. In a recipe both come from the data: those of the student,
    and those that a member is trained on.

    Raises ValueError for a class that two members know, that none knows or that the student has not, with its name.
    """

    card = Card(
        "Amalgamating knowledge towards comprehensive classification",
        "https://arxiv.org/abs/1811.02796",
        "AAAI",
        2019,
        source="offline",
        algorithms=("multi-teacher",),
        deviations="The paper's two steps (compact features first, then the student layer by layer) are left out: the scores of the teachers are put "
        "side by side, and the student learns them as a whole. Not verified against the authors' code.",
        equation=r"z^t = P \, [z^{t_1}; \dots; z^{t_K}]",
        use="Specialists whose training data are gone, one for each group of classes: the student learns the union, without a label. logit_mse "
        "learns the scores as they are; kd lets the groups compete.",
        pitfalls="No member has seen the classes of the others: on them it is sure of something wrong, and nothing says which member to trust. "
        "The scales of the members' logits must be alike: train them alike. A few labels help more than any temperature.",
    )
    merges_class_spaces: ClassVar = True

    def __init__(
        self,
        members: Sequence[nn.Module],
        member_class_names: Sequence[Sequence[str]],
        class_names: Sequence[str],
    ):
        super().__init__()
        if len(members) != len(member_class_names):
            raise ValueError(
                f"{len(members)} members have {len(member_class_names)} lists of class names"
            )
        self.order: Tensor
        self.register_buffer("order", torch.tensor(places(member_class_names, class_names)))
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.counts = [len(names) for names in member_class_names]

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        members = tuple(member(batch, grad=grad) for member in self.members)
        for number, (outputs, count) in enumerate(zip(members, self.counts, strict=True)):
            if "logits" not in outputs:
                raise ValueError(f"member {number} gives {', '.join(outputs)}, and no logits")
            if outputs["logits"].shape[-1] != count:
                raise ValueError(
                    f"member {number} gives {outputs['logits'].shape[-1]} logits and knows {count} classes by name"
                )
        logits = torch.cat([to_float32(outputs["logits"]) for outputs in members], -1)
        return {"logits": logits[..., self.order], "members": members}

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """All of the members: their logits are always read."""


def places(member_class_names: Sequence[Sequence[str]], class_names: Sequence[str]) -> list[int]:
    """Of each class, where it is among the members' classes, one behind the other.

    Raises ValueError for a class that two members know, that none knows or that is not among ``class_names``.
    """
    known: dict[str, int] = {}
    for number, names in enumerate(member_class_names):
        for name in names:
            if name in known:
                raise ValueError(
                    f"the class '{name}' is known by member {known[name]} and member {number}; each class must have one that knows it"
                )
            if name not in class_names:
                raise ValueError(
                    f"member {number} knows the class '{name}', which the student has not; {closest(name, class_names)}"
                )
            known[name] = number
    if missing := [name for name in class_names if name not in known]:
        raise ValueError(
            f"no member knows the class '{missing[0]}'; the members know {', '.join(known)}"
        )
    every = [name for names in member_class_names for name in names]
    return [every.index(name) for name in class_names]
