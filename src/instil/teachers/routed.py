"""One of several teachers for each sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs, Teacher, to_float32
from instil.functional.choices import require_choice
from instil.roles import LazyOutputs, Top
from instil.teachers.ensemble import lazy_prediction
from instil.teachers.frozen import Frozen

By = Literal["entropy", "label", "domain", "teacher_id"]
RULES: tuple[By, ...] = ("entropy", "label", "domain", "teacher_id")
ROW_KEYS = ("domain", "teacher_id")
"""Rules that choose one member for a whole row, by this key of the batch."""


class Routed(Teacher):
    """Teacher that uses the logits of one member for each item.

    The outputs are ``logits`` (..., C), ``member`` (...), the index of the chosen member, and
    ``members``, the outputs of all members. With members behind servers, which give the most likely
    tokens only, the output is ``top``; a member gets the rows of its own.

    Raises:
        ValueError: if there are no members, or ``by`` has another value.
    """

    card = Card(
        "Adaptive knowledge distillation based on entropy",
        "https://doi.org/10.1109/ICASSP40776.2020.9054698",
        "ICASSP",
        2020,
        source="offline",
        algorithms=("multi-teacher", "adaptive"),
        deviations="One member is chosen, whereas the paper weights all by their entropy. The "
        "choice by label, domain or teacher_id is not in the paper.",
    )

    def __init__(
        self,
        members: Sequence[nn.Module],
        by: Annotated[
            By,
            Doc(
                "choice of the member: entropy takes the lowest entropy; label the largest "
                "probability of the label (the lowest entropy without a label); domain or "
                "teacher_id the index in this key (N,) of the batch"
            ),
        ] = "entropy",
    ):
        super().__init__()
        if not members:
            raise ValueError("teacher: routed teachers need at least one member, got none")
        require_choice("ensemble.by", by, list(RULES))
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.by = by
        self._gives_logits = False

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if self.by in ROW_KEYS and self.by in batch and not self._gives_logits:
            top = self._top_by_row(batch)
            if top is not None:
                return {"top": top}
            self._gives_logits = True
        members = tuple(member(batch, grad=grad) for member in self.members)
        for index, outputs in enumerate(members):
            if "logits" not in outputs:
                raise ValueError(
                    f"teacher: member {index} gives {', '.join(outputs)}, and no logits to choose "
                    "from. Expected a classifier"
                )
        member_logits = torch.stack([to_float32(outputs["logits"]) for outputs in members])
        # The choice has no gradient, also in an attack that differentiates the chosen logits.
        chosen = self.choose(member_logits.detach(), batch)
        columns = chosen[None, ..., None].expand(1, *member_logits.shape[1:])
        logits = member_logits.gather(0, columns).squeeze(0)
        return LazyOutputs(
            {"logits": logits, "member": chosen, "members": members},
            lazy_prediction(logits, members),
        )

    def _top_by_row(self, batch: Batch) -> Top | None:
        """The most likely tokens of each row by its own member; None for members with logits."""
        member_of_row = self._member_of_row(batch)
        parts: list[tuple[Tensor, Top]] = []
        for index, member in enumerate(self.members):
            rows = (member_of_row == index).nonzero()[:, 0]
            if not len(rows):
                continue
            outputs: Outputs = member(_rows_of(batch, rows, len(member_of_row)))
            if "logits" in outputs or "top" not in outputs:
                return None
            parts.append((rows, outputs["top"]))
        sizes = sorted({part.values.shape[-1] for _, part in parts})
        if len(sizes) > 1:
            raise ValueError(
                "teacher.options.size: members return different numbers of tokens. Expected one "
                f"size, got {sizes[0]} and {sizes[1]}"
            )
        order = torch.cat([rows for rows, _ in parts]).argsort()
        fields = []
        for name in ("values", "indices", "log_tail"):
            fields.append(torch.cat([getattr(part, name) for _, part in parts])[order])
        return Top(*fields)

    def _member_of_row(self, batch: Batch) -> Tensor:
        """Index of the member of each row (N,)."""
        member: Tensor = batch[self.by]
        self.check_members(member, "the batch")
        return member

    def check_members(self, index: Tensor, source: str) -> None:
        """Check that each row has a member.

        Args:
            index: index of the member of each row (N,).
            source: name of the rows, for messages.

        Raises:
            ValueError: for an index without a member.
        """
        is_wrong = (index < 0) | (index >= len(self.members))
        if is_wrong.any():
            row = int(is_wrong.nonzero()[0, 0])
            raise ValueError(
                f"ensemble.by: {self.by} of row {row} of {source} has no member. Expected numbers "
                f"from 0 to {len(self.members) - 1}, got {index[row].tolist()}"
            )

    def choose(self, logits: Tensor, batch: Batch) -> Tensor:
        """Choose the member of each item.

        Args:
            logits: logits of the K members (K, ..., C).
            batch: the batch of this step.

        Returns:
            Indices of members (...).

        Raises:
            ValueError: if the batch lacks the key that decides, or names a member that is missing.
        """
        if self.by == "entropy":
            return lowest_entropy(logits)
        if self.by not in batch:
            raise ValueError(
                f"ensemble.by: members are chosen by '{self.by}'. Expected this key in the batch, "
                f"got {', '.join(batch)}"
            )
        if self.by in ROW_KEYS:
            member = self._member_of_row(batch)
            return member.view(-1, *[1] * (logits.ndim - 3)).expand(logits.shape[1:-1])
        label: Tensor = batch["label"]
        # Unlabelled items read class 0 here, and the last line replaces their choice.
        index = label.clamp_min(0).expand(logits.shape[:-1]).unsqueeze(-1)
        best = logits.log_softmax(-1).gather(-1, index).squeeze(-1).argmax(0)
        return torch.where(label != UNLABELLED, best, lowest_entropy(logits))

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        """Select no roles: the logits of all members are always read."""


def _rows_of(batch: Batch, rows: Tensor, size: int) -> Batch:
    """Rows of the entries of a batch that have one entry per row."""
    part: Batch = {}
    for key, value in batch.items():
        has_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == size
        part[key] = value[rows] if has_rows else value
    return part


def lowest_entropy(logits: Tensor) -> Tensor:
    """Index (...) of the member with the lowest entropy, of logits (K, ..., C)."""
    index: Tensor = torch.special.entr(logits.softmax(-1)).sum(-1).argmin(0)
    return index
