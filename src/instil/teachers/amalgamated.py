"""Several teachers with different classes, combined to one teacher of all classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import Batch, Card, Outputs, Teacher, to_float32
from instil.teachers.frozen import Frozen


class Amalgamated(Teacher):
    """Teacher that concatenates the logits of its members, in the order of the student's classes.

    The outputs are ``logits`` (..., C) for the C ``class_names``, and ``members``, the outputs of
    all members.

    Raises:
        ValueError: if two members have the same class, no member has a class of the student, or
            the student lacks a class of a member.
    """

    card = Card(
        "Amalgamating knowledge towards comprehensive classification",
        "https://arxiv.org/abs/1811.02796",
        "AAAI",
        2019,
        source="offline",
        algorithms=("multi-teacher",),
        tags=("merged_classes",),
        deviations="The paper's two steps (compact features first, then the student layer by "
        "layer) are left out: the teachers' logits are concatenated, and the student learns them "
        "as a whole. Not verified against the authors' code.",
        equation=r"z^t = P \, [z^{t_1}; \dots; z^{t_K}]",
        use="There are specialists for different groups of classes, and their training data are no "
        "longer available. The student learns the union without labels. logit_mse fits the logits "
        "as they are; with kd the groups compete.",
        pitfalls="No member was trained on the classes of the others. On those it is certain of a "
        "wrong class, and nothing indicates which member to trust. The members' logits need the "
        "same scale: train them in the same way. A few labels help more than any temperature.",
    )

    def __init__(
        self,
        members: Sequence[nn.Module],
        member_class_names: Annotated[
            Sequence[Sequence[str]],
            Doc(
                "classes of each member, in the order of its logits; in a recipe those of the data "
                "that the member is trained on"
            ),
        ],
        class_names: Annotated[
            Sequence[str], Doc("classes of the student; in a recipe those of the data")
        ],
    ):
        super().__init__()
        if len(members) != len(member_class_names):
            raise ValueError(
                f"member_class_names: {len(members)} members have {len(member_class_names)} lists "
                "of class names. Expected one list per member"
            )
        self.order: Tensor
        self.register_buffer("order", torch.tensor(class_order(member_class_names, class_names)))
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.counts = [len(names) for names in member_class_names]

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        members = tuple(member(batch, grad=grad) for member in self.members)
        for index, (outputs, count) in enumerate(zip(members, self.counts, strict=True)):
            if "logits" not in outputs:
                raise ValueError(
                    f"teacher: member {index} gives {', '.join(outputs)}, and no logits. Expected "
                    "a classifier"
                )
            num_logits = outputs["logits"].shape[-1]
            if num_logits != count:
                raise ValueError(
                    f"member_class_names: member {index} has {num_logits} logits and {count} class "
                    "names. Expected one name per logit"
                )
        # Raw logits: each member has its own normalizer, which the softmax over all classes
        # replaces.
        logits = torch.cat([to_float32(outputs["logits"]) for outputs in members], -1)
        return {"logits": logits[..., self.order], "members": members}

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Select no roles: the logits of all members are always read."""


def class_order(
    member_class_names: Sequence[Sequence[str]], class_names: Sequence[str]
) -> list[int]:
    """Position of each class in the concatenated classes of the members.

    Args:
        member_class_names: classes of each member.
        class_names: classes of the student.

    Returns:
        One position per class of the student.

    Raises:
        ValueError: if two members have the same class, no member has a class of the student, or
            the student lacks a class of a member.

    Example:
        >>> class_order([["dog"], ["cat", "bird"]], ["bird", "dog", "cat"])
        [2, 0, 1]
    """
    owner: dict[str, int] = {}
    every: list[str] = []
    for index, names in enumerate(member_class_names):
        for name in names:
            if name in owner:
                raise ValueError(
                    f"the class '{name}' is a class of member {owner[name]} and of member {index}. "
                    "Expected one member per class"
                )
            if name not in class_names:
                raise ValueError(
                    f"the class '{name}' of member {index} is not a class of the student."
                    f"{suggestion(name, class_names)}"
                )
            owner[name] = index
            every.append(name)
    missing = [name for name in class_names if name not in owner]
    if missing:
        raise ValueError(
            f"no member has the class '{missing[0]}'. Expected a member for each class, got "
            f"{', '.join(owner)}"
        )
    return [every.index(name) for name in class_names]
