"""A teacher that is asked once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import Batch, Outputs, Teacher
from instil.engine import init_distributed
from instil.store.outputs import flatten_outputs, unflatten_outputs
from instil.tasks.bases.task import to_device


class CachedTeacher(Teacher):
    """What a teacher said about each sample of ``batches``, by its index, whatever becomes of the sample afterwards: of these ``roles``."""

    def __init__(self, teacher: Teacher, roles: Sequence[str], batches: Iterable[Batch]):
        super().__init__()
        self.how: dict[str, Any] = {}
        self.last = 0
        answers: dict[str, list[Tensor]] = {}
        shared: dict[str, Tensor] = {}
        indices: list[Tensor] = []
        for batch in batches:
            index, self.last = batch["index"], max(self.last, int(batch["index"].max()))
            outputs, parts = teacher(to_device(batch, init_distributed())), dict[str, Tensor]()
            self.how = {role: flatten_outputs(outputs[role], role, parts, shared) for role in roles}
            rows = (
                batch["valid"]
                if "valid" in batch and batch["valid"].shape == index.shape
                else torch.ones_like(index, dtype=torch.bool)
            )
            indices.append(index[rows])
            for name, part in parts.items():
                answers.setdefault(name, []).append(part[rows.to(part.device)])
        for name, kept in answers.items():
            every = torch.cat(kept)
            said = every.new_zeros(self.last + 1, *every.shape[1:])
            self.register_buffer(
                _buffer(name), said.index_copy_(0, torch.cat(indices).to(said.device), every)
            )
        for name, part in shared.items():
            self.register_buffer(_buffer(name), part)
        self.rows, self.shared = tuple(answers), tuple(shared)

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """The remembered answers; ValueError where they are to be differentiated."""
        if grad:
            raise ValueError(
                "a plain teacher was asked before the stage began: there is no gradient by its input; leave plain out"
            )
        index = batch["index"]
        answers = {
            name: self.get_buffer(_buffer(name)).to(index.device)[index] for name in self.rows
        }
        shared = {name: self.get_buffer(_buffer(name)).to(index.device) for name in self.shared}
        return {role: unflatten_outputs(how, answers | shared) for role, how in self.how.items()}


def _buffer(name: str) -> str:
    return name.replace(".", "-")
