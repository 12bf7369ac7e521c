"""Base class of losses on pairs of hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Objective, Outputs
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import Layers, layer_map, layer_tensors, replace_padding
from instil.functional.pairs import describe_pair
from instil.items import Items
from instil.modules.adapters import LinearAdapter, linear_adapter


class HiddenObjective(Objective):
    """Base class of losses on pairs of hidden states (N, L, D), the embedding output first.

    Where the widths differ, a linear adapter maps the student's states.

    Attributes:
        matched: pairs of layers (student layer, teacher layer), after ``build``.
        plan: description of each pair, after ``build``.
        projections: adapter of each pair, or one for all.
    """

    needs: ClassVar = {"student": (("hidden_states",),), "teacher": (("hidden_states",),)}
    items = Items(per_sample=True)
    shares: ClassVar[bool] = False
    """Whether all layers share one adapter."""

    def __init__(
        self,
        layers: Annotated[
            Layers,
            Doc(
                "pairs [[student layer, teacher layer], ...]; the first layer is 1, the embedding "
                "output 0. uniform: student layers spread over the teacher's. last: the last layers"
            ),
        ] = "uniform",
    ):
        super().__init__()
        self.layers = layers
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.projections = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the layers of a dry batch and build the adapters.

        Raises:
            ValueError: if a pair is not possible, or the tokens of the sides differ.
        """
        student_states = layer_tensors(student, "hidden_states")
        teacher_states = layer_tensors(teacher, "hidden_states")
        self.matched = self.choose(len(student_states) - 1, len(teacher_states) - 1)
        self.projections = nn.ModuleList()
        self.plan = []
        for i, j in self.matched:
            one, other = student_states[i], teacher_states[j]
            if one.ndim != 3 or one.shape[:2] != other.shape[:2]:
                raise ValueError(
                    f"hidden states are {tuple(one.shape)} and {tuple(other.shape)}; both sides "
                    "must have (samples, tokens, width) of the same tokens"
                )
            if not (self.shares and len(self.projections)):
                self.projections.append(self.connect(one, other))
            is_projected = isinstance(self.projections[-1], LinearAdapter)
            description = "projected" if is_projected else "as it is"
            self.plan.append(describe_pair((i, j), one, other, description))

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Pairs of layers, for the numbers of layers of student and teacher."""
        return layer_map(self.layers, student, teacher, first=0)

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """Build the adapter of one pair, from states of a dry batch."""
        return linear_adapter(student, teacher)

    def matched_pairs(
        self, student: Outputs, teacher: Outputs, mask: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the adapted student state and the teacher state of every pair of layers.

        Args:
            student: student outputs.
            teacher: teacher outputs.
            mask: (N, L), 0 for padding, whose states are replaced before the adapter.
        """
        student_states = layer_tensors(student, "hidden_states")
        teacher_states = layer_tensors(teacher, "hidden_states")
        for index, (i, j) in enumerate(self.matched):
            projection = self.projections[0 if self.shares else index]
            state = student_states[i]
            if isinstance(projection, LinearAdapter):
                state = replace_padding(state, mask)
            yield require_same_shape(projection(state), teacher_states[j], "hidden states")
