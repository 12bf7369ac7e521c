"""Teacher whose outputs are computed once, before training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from instil.core import Batch, Outputs, Teacher
from instil.engine import init_distributed
from instil.experiment.token_widths import resized, row_width
from instil.files.atomic import atomic
from instil.files.checksums import NO_DIGEST, TENSORS_KEY, check_tensors, seal_tensors
from instil.items import to_device
from instil.store.outputs import flatten_outputs, unflatten_outputs

FACTS = "instil.outputs"
"""Key of the metadata with the structure of the outputs."""


class CachedTeacher(Teacher):
    """Outputs of a teacher for each sample, computed once and looked up by the sample's ``index``.

    They do not depend on later changes of a sample, such as augmentation. Outputs of rows of tokens
    have the width of the batch that reads them, which may be another one than when they were
    computed.

    Args:
        teacher: teacher that is evaluated.
        roles: roles that are cached.
        batches: samples without augmentation. Rows that ``valid`` marks as padding are left out.
        reduce: function from the outputs of a batch to those that are cached; None for no change.
    """

    def __init__(
        self,
        teacher: Teacher,
        roles: Sequence[str],
        batches: Iterable[Batch],
        reduce: Callable[[Outputs], Outputs] | None = None,
    ):
        super().__init__()
        self.structure: dict[str, Any] = {}
        self.last_index = 0
        self.width = 0
        rows: dict[str, list[tuple[Tensor, int]]] = {}
        shared: dict[str, Tensor] = {}
        indices: list[Tensor] = []
        for batch in batches:
            index = batch["index"]
            self.last_index = max(self.last_index, int(index.max()))
            width = row_width(batch)
            self.width = max(self.width, width)
            outputs = teacher(to_device(batch, init_distributed()))
            if reduce is not None:
                outputs = reduce(outputs)
            tensors: dict[str, Tensor] = {}
            self.structure = {
                role: flatten_outputs(outputs[role], role, tensors, shared) for role in roles
            }
            is_sample = _is_sample(batch)
            indices.append(index[is_sample])
            for name, tensor in tensors.items():
                part = tensor[is_sample.to(tensor.device)]
                rows.setdefault(name, []).append((part, width))
        # One table per tensor: a lookup by index is then a single indexing operation.
        for name, parts in rows.items():
            whole = torch.cat([resized(part, name, width, self.width) for part, width in parts])
            self.register_buffer(_buffer(name), self._table(whole, torch.cat(indices)))
        for name, tensor in shared.items():
            self.register_buffer(_buffer(name), tensor)
        self.row_names = tuple(rows)
        self.shared_names = tuple(shared)

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        """Return the cached outputs of a batch.

        Raises:
            ValueError: for ``grad``, since cached outputs have no gradient.
        """
        if grad:
            raise ValueError(
                "teacher.precompute: the outputs of the teacher were computed before the stage, so "
                "they have no gradient with respect to its input. Leave precompute out"
            )
        index = batch["index"]
        tensors: dict[str, Tensor] = {}
        width = batch["attention_mask"].shape[1] if self.width else 0
        for name in self.row_names:
            rows = self.get_buffer(_buffer(name)).to(index.device)[index]
            tensors[name] = resized(rows, name, self.width, width)
        for name in self.shared_names:
            tensors[name] = self.get_buffer(_buffer(name)).to(index.device)
        return {role: unflatten_outputs(part, tensors) for role, part in self.structure.items()}

    def save(self, path: Path) -> None:
        """Write the outputs to a safetensors file."""
        facts = {
            "structure": self.structure,
            "last_index": self.last_index,
            "width": self.width,
            "rows": self.row_names,
            "shared": self.shared_names,
        }
        tensors = {name: value.cpu().contiguous() for name, value in self.named_buffers()}
        with atomic(path) as temporary:
            save_file(tensors, temporary, {FACTS: json.dumps(facts), TENSORS_KEY: NO_DIGEST})
            seal_tensors(temporary)

    @classmethod
    def load(cls, path: Path) -> CachedTeacher:
        """Read the outputs that ``save`` wrote, to the device of this process.

        Raises:
            DamagedFileError: if the content of the file differs from its checksum.
        """
        check_tensors(path, "Delete it; the outputs are computed again then")
        outputs = cls.__new__(cls)
        Teacher.__init__(outputs)
        with safe_open(str(path), "pt", device=str(init_distributed())) as file:
            facts = json.loads(file.metadata()[FACTS])
            for name in file.keys():  # noqa: SIM118 - the file is not a mapping
                outputs.register_buffer(name, file.get_tensor(name))
        outputs.structure = facts["structure"]
        outputs.last_index = facts["last_index"]
        outputs.width = facts.get("width", 0)
        outputs.row_names = tuple(facts["rows"])
        outputs.shared_names = tuple(facts["shared"])
        return outputs

    def _table(self, rows: Tensor, indices: Tensor) -> Tensor:
        """Tensor with the row of a sample at its index; rows without a sample are 0."""
        table = rows.new_zeros(self.last_index + 1, *rows.shape[1:])
        return table.index_copy_(0, indices.to(table.device), rows)


def _is_sample(batch: Batch) -> Tensor:
    """Mask (N,) of the rows that are samples, not padding."""
    index: Tensor = batch["index"]
    valid: Tensor | None = batch.get("valid")
    # In dense tasks ``valid`` marks pixels or tokens, and every row is a sample.
    if valid is None or valid.shape != index.shape:
        return torch.ones_like(index, dtype=torch.bool)
    return valid


def _buffer(name: str) -> str:
    return name.replace(".", "-")
