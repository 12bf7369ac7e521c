"""A teacher that is asked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from instil.core import Batch, Outputs, Teacher
from instil.engine import join_ranks
from instil.tasks.task import moved


class Remembered(Teacher):
    """What a teacher said about each sample of ``batches``, by its index, whatever becomes of the sample afterwards: of these ``roles``."""

    def __init__(self, teacher: Teacher, roles: Sequence[str], batches: Iterable[Batch]):
        super().__init__()
        self.roles = tuple(roles)
        answers: dict[str, list[Tensor]] = {role: [] for role in self.roles}
        indices, last = [], 0
        for batch in batches:
            index, last = batch["index"], max(last, int(batch["index"].max()))
            outputs = teacher(moved(batch, join_ranks()))
            rows = batch["valid"] if "valid" in batch and batch["valid"].shape == index.shape else torch.ones_like(index, dtype=torch.bool)
            indices.append(index[rows])
            for role in self.roles:
                answers[role].append(outputs[role][rows.to(outputs[role].device)])
        for role, parts in answers.items():
            rows_of_role = torch.cat(parts)
            said = rows_of_role.new_zeros(last + 1, *rows_of_role.shape[1:])
            self.register_buffer(role, said.index_copy_(0, torch.cat(indices).to(said.device), rows_of_role))

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """The remembered answers; ValueError where they are to be differentiated."""
        if grad:
            raise ValueError("a plain teacher was asked before the stage began: there is no gradient by its input; leave plain out")
        index = batch["index"]
        return {role: self.get_buffer(role).to(index.device)[index] for role in self.roles}
