"""What losses inside transformers share: which layers, the projection between two widths, and means over tokens without padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from instil.core import Batch, Objective, Outputs, every_item_counts, full, replace_uncounted
from instil.objectives.adapters import comparable, like
from instil.objectives.pairs import chosen, plan

Layers = Literal["uniform", "last"] | list[list[int]]
"""``uniform``, ``last``, or [[student layer, teacher layer], ...]; the first layer is 1, the embedding output 0."""


def layer_map(layers: Layers, student: int, teacher: int, first: int = 1) -> list[tuple[int, int]]:
    """(student layer, teacher layer) pairs for nets of so many layers.

    ``uniform``: layer m of M learns from layer m N / M of N, rounded (Jiao et al. 2020). ``first`` is the lowest number a given pair may name.
    Raises ValueError where a pair is not two numbers or names a layer that is not there.
    """
    if layers == "uniform":
        return [
            (m, max(1, (2 * m * teacher + student) // (2 * student))) for m in range(1, student + 1)
        ]
    if layers == "last":
        return [(student, teacher)]
    return chosen(
        layers,
        student + 1 - first,
        teacher + 1 - first,
        "layers",
        "layer",
        "'uniform' nor 'last'",
        first,
    )


def states(outputs: Outputs, role: str) -> tuple[Tensor, ...]:
    """The tensors of a role, shallow to deep; one tensor is one layer."""
    found = outputs[role]
    return (found,) if isinstance(found, Tensor) else tuple(found)


def paired_attentions(
    student: Outputs, teacher: Outputs, matched: list[tuple[int, int]]
) -> list[tuple[Tensor, Tensor]]:
    """The attentions (N, heads, L, L) of every pair of layers; the embedding output has none.

    Raises ValueError where the two sides have not the same heads and tokens, or not an attention for every layer.
    """
    mine, theirs = states(student, "attentions"), states(teacher, "attentions")
    layers = [(i - 1, j - 1) for i, j in matched if i and j]
    for i, j in layers:
        if i >= len(mine) or j >= len(theirs):
            raise ValueError(
                f"attentions: the student gives {len(mine)} and the teacher {len(theirs)}; expected one for every layer"
            )
        if mine[i].shape != theirs[j].shape:
            shapes = f"{tuple(mine[i].shape)} and {tuple(theirs[j].shape)}"
            raise ValueError(
                f"attentions are {shapes}; both sides must have (samples, heads, tokens, tokens) of the same heads and tokens"
            )
    return [(mine[i], theirs[j]) for i, j in layers]


def token_mask(batch: Batch, tokens: Tensor) -> Tensor | None:
    """(N, L): 1 for the tokens of (N, L, ...) that count, from ``attention_mask`` and from ``valid`` where it has one entry a position.

    None where all count. Raises ValueError for an ``attention_mask`` of another length.
    """
    masks = [batch["attention_mask"]] if "attention_mask" in batch else []
    if "valid" in batch and batch["valid"].ndim == 2:
        masks.append(batch["valid"])
    for mask in masks:
        if mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"a mask of shape {tuple(mask.shape)} for tokens {tuple(tokens.shape)}; both begin with (samples, tokens)"
            )
    return torch.stack([mask.to(full(tokens).dtype) for mask in masks]).prod(0) if masks else None


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (N, L) over the tokens that count: (N,); 0 for a sample without any."""
    if mask is None:
        return values.mean(1)
    mask = mask.to(values.dtype)
    return torch.where(mask > 0, values * mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)


def replace_padding(states: Tensor, mask: Tensor | None) -> Tensor:
    """Replace what padded tokens hold before arithmetic reads it.

    ``masked_mean`` discards values of padding afterwards, which is too late for gradients where
    the padding holds NaN or inf.

    Args:
        states: (N, L, D).
        mask: (N, L), 0 for padding; None where there is no padding.
    """
    return states if mask is None else replace_uncounted(states, mask > 0)


def replace_padded_queries(attentions: Tensor, mask: Tensor | None) -> Tensor:
    """Replace the attention rows of padded queries by zeros: (N, heads, L, L), mask (N, L)."""
    if mask is None or every_item_counts(mask > 0):
        return attentions
    return attentions.masked_fill(mask[:, None, :, None] == 0, 0.0)


class Projection(nn.Linear):
    """From the student's width to the teacher's, in the precision of its weight."""

    def forward(self, student: Tensor) -> Tensor:
        return super().forward(like(self, full(student)))


class HiddenObjective(Objective):
    """A loss of pairs of hidden states (N, L, D), the embedding output first; where the widths differ the student's is projected, linearly.

    ``layers``: uniform spreads the student's layers over the teacher's, last pairs the last ones, or [[student layer, teacher layer], ...]; the
    first layer is 1, the embedding output 0.

    ``plan`` says in words, after ``build``, which layers were paired and how.
    """

    needs: ClassVar = {"student": (("hidden_states",),), "teacher": (("hidden_states",),)}
    samples = True
    shares: ClassVar[bool] = False  # one projection for all layers

    def __init__(self, layers: Layers = "uniform"):
        super().__init__()
        self.layers = layers
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []
        self.projections = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the layers of a dry batch and make the projections. Raises ValueError for an impossible pair, and other tokens on either side."""
        mine, theirs = states(student, "hidden_states"), states(teacher, "hidden_states")
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
            how = "projected" if isinstance(self.projections[-1], Projection) else "as it is"
            self.plan.append(plan((i, j), mine[i], theirs[j], how))

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """The pairs of layers of nets that have so many."""
        return layer_map(self.layers, student, teacher, first=0)

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """What takes a student state to the width of a teacher's; nothing where they agree."""
        widths = student.shape[-1], teacher.shape[-1]
        return (
            nn.Identity()
            if widths[0] == widths[1]
            else Projection(*widths, device=student.device, dtype=full(student).dtype)
        )

    def paired(
        self, student: Outputs, teacher: Outputs, mask: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the projected student state and the teacher state of every pair of layers.

        Padded tokens, where ``mask`` (N, L) is 0, are replaced before the projection.
        """
        mine, theirs = states(student, "hidden_states"), states(teacher, "hidden_states")
        for place, (i, j) in enumerate(self.matched):
            projection = self.projections[0 if self.shares else place]
            state = mine[i]
            if isinstance(projection, Projection):
                state = replace_padding(state, mask)
            yield comparable(projection(state), theirs[j], "hidden states")
