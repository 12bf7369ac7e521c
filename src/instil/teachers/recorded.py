"""A teacher that was asked before: its answers are read, and belong to exactly the input that the student sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from instil.core import (
    Batch,
    Card,
    Outputs,
    Projection,
    Sampled,
    Teacher,
    Top,
    closest,
    first_tensor,
)


class Answers(Protocol):
    """Where answers are kept, such as a ``Store``."""

    def roles(self, section: str) -> set[str]: ...

    def read(self, name: str, index: Tensor, view: Tensor) -> tuple[Outputs, Tensor]: ...


Checksums = Callable[[Tensor], Tensor]
"""How the rows of an input become numbers (N,)."""


class Recorded(Teacher):
    """Recorded answers by ``index`` and ``view`` of the batch, after a check that they were given to this very input.

    ``answers``: a ``Store``; ``section``: which of its sections; ``checksums``: how an input becomes the number that was recorded with its answer.

    Raises ValueError for a batch without ``index`` and ``view``, an input that differs from the one recorded (as where images are mixed or attacked
    after the loader), or ``grad=True``.
    """

    card = Card(
        "A good teacher is patient and consistent",
        "https://arxiv.org/abs/2106.05237",
        "CVPR",
        2022,
        source="offline",
        deviations="The paper asks its teacher anew for every view; here each of a finite number of views is answered once.",
        use="A teacher that is slow or lives elsewhere: asked once, it costs nothing in training, and many students learn from it.",
        pitfalls="Every view of a sample that training sees must have been recorded. What is mixed or changed after the loader cannot be.",
    )

    missing_role_hint = (
        "the store does not hold it: record anew with this objective (instil record)"
    )

    def __init__(self, answers: Answers, checksums: Checksums, section: str = "train"):
        super().__init__()
        self.answers, self.checksums, self.section = answers, checksums, section

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if grad:
            raise ValueError(
                "a recorded teacher cannot be differentiated by its input; ask the live one (leave store out of the recipe)"
            )
        if missing := [key for key in ("index", "view") if key not in batch]:
            raise ValueError(
                f"recorded answers are found by index and view, and the batch has no '{missing[0]}'; let the data set return it"
            )
        index, view = batch["index"].cpu(), batch["view"].cpu()
        outputs, expected = self.answers.read(self.section, index, view)
        if len(other := index[self.checksums(first_tensor(batch)) != expected]):
            raise ValueError(
                f"the input of sample {int(other[0])} is not the one that the teacher answered: it was augmented otherwise, or mixed or attacked "
                "after the loader, which cannot be recorded; ask the live teacher (leave store out of the recipe)"
            )
        return {role: _on(value, first_tensor(batch).device) for role, value in outputs.items()}

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        there = self.answers.roles(self.section)
        if missing := sorted(set(roles) - there):
            raise ValueError(
                f"'{missing[0]}' was not recorded, only {', '.join(sorted(there))}; {closest(missing[0], there)}; record it anew"
            )


def _on(value: Any, device: torch.device) -> Any:
    """Tensors, and tuples and mappings of them, on a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _on(part, device) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_on(part, device) for part in value)
    if (
        isinstance(value, Projection) and value.hidden.dtype == torch.float16
    ):  # halved to be kept: its head is not
        value = dataclasses.replace(value, hidden=value.hidden.to(value.weight.dtype))
    if isinstance(value, (Projection, Top, Sampled)):
        return dataclasses.replace(
            value,
            **{
                field.name: _on(getattr(value, field.name), device)
                for field in dataclasses.fields(value)
            },
        )
    return value
