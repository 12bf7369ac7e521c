"""Teacher whose outputs were recorded earlier, for exactly the inputs that the student gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor
from typing_extensions import Doc

from instil.cards.closest import did_you_mean
from instil.core import Batch, Card, Outputs, Teacher, first_tensor
from instil.roles import Projection, Sampled, Top


class Answers(Protocol):
    """Protocol of a source of recorded outputs, such as a ``Store``."""

    def roles(self, section: str) -> set[str]: ...

    def read(self, name: str, index: Tensor, view: Tensor) -> tuple[Outputs, Tensor]: ...


Checksums = Callable[[Tensor], Tensor]
"""Maps the rows of an input to numbers (N,)."""


class Recorded(Teacher):
    """Teacher that reads recorded outputs by the ``index`` and ``view`` of a batch.

    Checksums prove that the outputs belong to this input. The forward pass raises ValueError for an
    input that differs from the recorded one, for example after mixing or an attack. It does so also
    for ``grad=True``, and for a batch without ``index`` and ``view``.
    """

    card = Card(
        "A good teacher is patient and consistent",
        "https://arxiv.org/abs/2106.05237",
        "CVPR",
        2022,
        source="offline",
        deviations="The paper runs its teacher on a new view in every step. Here there is a finite "
        "number of views, and each is recorded once.",
        use="The teacher is slow or runs elsewhere. It runs once; training then costs no teacher "
        "time, and many students can learn from the record.",
        pitfalls="Every view of a sample that training uses must be recorded. Inputs that are "
        "mixed or changed after the loader cannot be recorded.",
    )

    def __init__(
        self,
        answers: Annotated[Answers, Doc("source of the recorded outputs, such as a ``Store``")],
        checksums: Annotated[
            Checksums, Doc("function from inputs to the checksums that were recorded with them")
        ],
        section: Annotated[str, Doc("section of the source")] = "train",
    ):
        super().__init__()
        self.answers = answers
        self.checksums = checksums
        self.section = section

    def missing_role_remedy(self) -> str:
        """End of the error for a role that was not recorded."""
        return "the store does not hold it: record again with this objective (instil record)"

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        if grad:
            raise ValueError(
                "teacher.store: a recorded teacher cannot be differentiated by its input. Use the "
                "live teacher: leave store out of the recipe"
            )
        missing = [key for key in ("index", "view") if key not in batch]
        if missing:
            raise ValueError(
                "teacher.store: recorded outputs are identified by index and view, and the batch "
                f"has no '{missing[0]}'. Return it from the data set"
            )
        # The store is on the host, so the indices are needed there in any case.
        index = batch["index"].cpu()
        view = batch["view"].cpu()
        outputs, expected = self.answers.read(self.section, index, view)
        # Compared in every step: outputs of another augmentation or another file would be used
        # silently.
        different = index[self.checksums(first_tensor(batch)) != expected]
        if len(different):
            raise ValueError(
                f"teacher.store: the input of sample {int(different[0])} is not the recorded one. "
                "Expected the same augmentation, without mixing or attacks after the loader. Use "
                "the live teacher: leave store out of the recipe"
            )
        return {
            role: _to_device(value, first_tensor(batch).device) for role, value in outputs.items()
        }

    def select_roles(self, roles: Iterable[str], batch: Batch) -> None:
        recorded = self.answers.roles(self.section)
        missing = sorted(set(roles) - recorded)
        if missing:
            raise ValueError(
                f"teacher.store: '{missing[0]}' was not recorded. Expected one of "
                f"{', '.join(sorted(recorded))}. Record again.{did_you_mean(missing[0], recorded)}"
            )


def _to_device(value: Any, device: torch.device) -> Any:
    """Move tensors, and the tensors in tuples, mappings and signals, to a device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to_device(part, device) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_to_device(part, device) for part in value)
    # Hidden states are stored in half precision, the head in its own.
    if isinstance(value, Projection) and value.hidden.dtype == torch.float16:
        value = dataclasses.replace(value, hidden=value.hidden.to(value.weight.dtype))
    if isinstance(value, (Projection, Top, Sampled)):
        fields = [field.name for field in dataclasses.fields(value)]
        moved = {name: _to_device(getattr(value, name), device) for name in fields}
        return dataclasses.replace(value, **moved)
    return value
