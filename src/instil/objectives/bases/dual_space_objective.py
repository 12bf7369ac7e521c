"""Base class of losses with projections between two hidden spaces."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Objective, Outputs, Positive, to_float32
from instil.functional.tokens.dual_space import DualSpaceDivergence
from instil.modules.adapters import match_dtype


class DualSpace(Objective):
    """Base class of losses with one linear map per direction between the hidden spaces.

    Attributes:
        to_student: map of teacher states to the student's width.
        to_teacher: map of student states to the teacher's width.
    """

    needs: ClassVar = dict.fromkeys(
        ("student", "teacher"), (("logits",), ("embedding",), ("head",))
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the divergences")] = 2.0,
        divergence: Annotated[
            DualSpaceDivergence,
            Doc("divergence in the student's space; the teacher's space uses the forward KL"),
        ] = "forward_kl",
    ):
        super().__init__()
        self.temperature = temperature
        self.divergence = divergence
        self.to_student: nn.Module = nn.Identity()
        self.to_teacher: nn.Module = nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        student_states, teacher_states = student["embedding"], teacher["embedding"]
        student_width, teacher_width = student_states.shape[-1], teacher_states.shape[-1]
        device, dtype = student_states.device, to_float32(student_states).dtype
        self.to_student = nn.Linear(teacher_width, student_width, device=device, dtype=dtype)
        self.to_teacher = nn.Linear(student_width, teacher_width, device=device, dtype=dtype)

    def projected(self, module: nn.Module, states: Tensor) -> Tensor:
        """States in the other hidden space, by ``to_student`` or ``to_teacher``."""
        result: Tensor = module(match_dtype(module, to_float32(states)))
        return result
