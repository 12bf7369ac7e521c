"""Base class of losses on pairs of hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor, nn

from instil.core import Objective, Outputs, to_float32
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import Layers, layer_map, layer_tensors, replace_padding
from instil.functional.pairs import describe_pair
from instil.modules.adapters import LinearAdapter


class HiddenObjective(Objective):
    """A loss of pairs of hidden states (N, L, D), the embedding output first; where the widths differ the student's is projected, linearly.

    ``layers``: uniform spreads the student's layers over the teacher's, last pairs the last ones, or [[student layer, teacher layer], ...]; the
    first layer is 1, the embedding output 0.

    ``describe_pair`` says in words, after ``build``, which layers were paired and how.
    """

    needs: ClassVar = {"student": (("hidden_states",),), "teacher": (("hidden_states",),)}
    per_sample = True
    shares: ClassVar[bool] = False  # one projection for all layers

    def __init__(self, layers: Layers = "uniform"):
        super().__init__()
        self.layers = layers
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.projections = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the layers of a dry batch and make the projections. Raises ValueError for an impossible pair, and other tokens on either side."""
        mine, theirs = (
            layer_tensors(student, "hidden_states"),
            layer_tensors(teacher, "hidden_states"),
        )
        self.matched = self.choose(len(mine) - 1, len(theirs) - 1)
        self.projections, self.plan = nn.ModuleList(), []
        for i, j in self.matched:
            if mine[i].ndim != 3 or mine[i].shape[:2] != theirs[j].shape[:2]:
                shapes = f"{tuple(mine[i].shape)} and {tuple(theirs[j].shape)}"
                raise ValueError(
                    f"hidden states are {shapes}; both sides must have (samples, tokens, width) of the same tokens"
                )
            if not (self.shares and len(self.projections)):
                self.projections.append(self.connect(mine[i], theirs[j]))
            how = "projected" if isinstance(self.projections[-1], LinearAdapter) else "as it is"
            self.plan.append(describe_pair((i, j), mine[i], theirs[j], how))

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """The pairs of layers of nets that have so many."""
        return layer_map(self.layers, student, teacher, first=0)

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """What takes a student state to the width of a teacher's; nothing where they agree."""
        widths = student.shape[-1], teacher.shape[-1]
        return (
            nn.Identity()
            if widths[0] == widths[1]
            else LinearAdapter(*widths, device=student.device, dtype=to_float32(student).dtype)
        )

    def matched_pairs(
        self, student: Outputs, teacher: Outputs, mask: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the projected student state and the teacher state of every pair of layers.

        Padded tokens, where ``mask`` (N, L) is 0, are replaced before the projection.
        """
        mine, theirs = (
            layer_tensors(student, "hidden_states"),
            layer_tensors(teacher, "hidden_states"),
        )
        for place, (i, j) in enumerate(self.matched):
            projection = self.projections[0 if self.shares else place]
            state = mine[i]
            if isinstance(projection, LinearAdapter):
                state = replace_padding(state, mask)
            yield require_same_shape(projection(state), theirs[j], "hidden states")
