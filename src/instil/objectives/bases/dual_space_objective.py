"""Base class of losses with projections between two hidden spaces."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Objective, Outputs, Positive, to_float32
from instil.functional.tokens.dual_space import DualSpaceDivergence
from instil.modules.adapters import match_dtype


class DualSpace(Objective):
    """What has a projection each way: states of the teacher to the student's width, and of the student to the teacher's."""

    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("logits",), ("embedding",), ("head",))
    )

    handles_token_alignment = True

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the divergences")] = 2.0,
        divergence: Annotated[
            DualSpaceDivergence,
            Doc("divergence in the student's space; the teacher's space uses the forward KL"),
        ] = "forward_kl",
    ):
        super().__init__()
        self.temperature, self.divergence = temperature, divergence
        self.to_student: nn.Module = nn.Identity()
        self.to_teacher: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        mine, theirs = student["embedding"], teacher["embedding"]
        where = {"device": mine.device, "dtype": to_float32(mine).dtype}
        self.to_student = nn.Linear(theirs.shape[-1], mine.shape[-1], **where)
        self.to_teacher = nn.Linear(mine.shape[-1], theirs.shape[-1], **where)

    def projected(self, module: nn.Module, states: Tensor) -> Tensor:
        """States in the other's space."""
        moved: Tensor = module(match_dtype(module, to_float32(states)))
        return moved
