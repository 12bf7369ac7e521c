"""MiniLMv2: how queries, keys and values of one layer relate the tokens to each other, cut into as many relation heads on either side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, closest, to_float32
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import (
    Layers,
    layer_map,
    layer_tensors,
    masked_mean,
    replace_padded_queries,
    replace_padding,
    token_mask,
)
from instil.functional.logits import apply_reduction
from instil.functional.pairs import describe_pair

Relations = Literal["qq_kk_vv", "qk_vv"]
PARTS: tuple[tuple[Relations, tuple[tuple[str, str], ...]], ...] = (
    ("qq_kk_vv", (("queries", "queries"), ("keys", "keys"), ("values", "values"))),
    ("qk_vv", (("queries", "keys"), ("values", "values"))),
)
MASKED = -1e30


def relation_scores(
    first: Tensor, second: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Scaled products of the tokens of two (N, L, D), cut into relation heads of D / heads: (N, heads, L, L) (Wang et al. 2021).

    ``mask`` (N, L): a token where it is 0 is related to by none. Raises ValueError where D cannot be cut into so many heads.
    """
    if first.ndim != 3 or first.shape != second.shape or first.shape[-1] % heads:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(
            f"{shapes} cannot be related by {heads} heads; expected two of one shape (samples, tokens, width), width divisible by heads"
        )
    first, second = replace_padding(first, mask), replace_padding(second, mask)
    one, other = (
        to_float32(side).reshape(*side.shape[:2], heads, -1).transpose(1, 2)
        for side in (first, second)
    )
    scores: Tensor = one @ other.mT / one.shape[-1] ** 0.5
    return scores if mask is None else scores.masked_fill(mask[:, None, None] == 0, MASKED)


def minilmv2_loss(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """KL(teacher || student) of the softmaxes of relation scores (N, heads, L, L) over the last dimension (Wang et al. 2021).

    Mean over heads and a sample's tokens; ``mask`` (N, L): 1 for a token, 0 for padding. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "minilmv2_loss")
    student, teacher = (replace_padded_queries(side, mask) for side in (student, teacher))
    values = softened_kl(student, teacher).mean(1)
    return apply_reduction(masked_mean(values, mask), reduction)


class MiniLMv2(Objective):
    """Self-attention relations of one layer, summed over the kinds of relation; no parameters, and widths and attention heads may differ.

    ``queries``, ``keys`` and ``values`` are (N, L, D) before they are cut into heads: tap the linear layers that make them.

    ``heads``: relation heads, on either side (48 for a base-size teacher, 64 for a large one); they must divide both widths.
    ``relations``: queries with queries, keys with keys and values with values; or MiniLM's, queries with keys and values with values.
    ``layers``: last, uniform (every student layer), or [[student layer, teacher layer]], the first being 1: of a large teacher the paper takes
    an upper middle layer, [[6, 21]]. Several are summed. Numbers count the layers that are tapped.
    """

    card = Card(
        "MiniLMv2: multi-head self-attention relation distillation for compressing pretrained transformers",
        "https://arxiv.org/abs/2012.15828",
        "Findings of ACL",
        2021,
        source="relations",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="padding neither relates nor is related to, of which the paper says nothing",
        equation=r"\sum_{B \in \lbrace Q, K, V \rbrace} \frac{1}{A L} \sum_{a=1}^{A} \sum_{x=1}^{L} \mathrm{KL}\left( R^t_{B,ax} \Vert R^s_{B,ax} "
        r"\right), \quad R_{B,a} = \mathrm{softmax}\left(\tfrac{B_a B_a^\top}{\sqrt{d}}\right)",
        use="For transformers of any widths, depths and numbers of attention heads, before any task: no labels and no parameters. For a deep "
        "teacher, give layers an upper middle layer instead of the last.",
        pitfalls="Both nets need the same tokenizer and the same tokens, and relation heads must divide both widths: 48 divides 384 and 768, not "
        "128. Memory grows with relation heads times the square of the length.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("queries",), ("keys",), ("values",)))
    per_sample = True

    def __init__(
        self,
        heads: Annotated[int, Ge(1)] = 48,
        relations: Relations = "qq_kk_vv",
        layers: Layers = "last",
    ):
        super().__init__()
        if relations not in dict(PARTS):
            raise ValueError(
                f"relations: no relations '{relations}'; {closest(relations, dict(PARTS))}"
            )
        self.heads, self.relations, self.layers = heads, relations, layers
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the layers. Raises ValueError for a width that the relation heads do not divide, and for other tokens on either side."""
        mine, theirs = layer_tensors(student, "values"), layer_tensors(teacher, "values")
        self.matched = layer_map(self.layers, len(mine), len(theirs))
        self.plan = [
            describe_pair((i, j), mine[i - 1], theirs[j - 1], f"{self.heads} relation heads")
            for i, j in self.matched
        ]
        for first, second, of_student, of_teacher in self.related(student, teacher, None):
            require_same_shape(of_student, of_teacher, f"relations of {first} and {second}")

    def related(
        self, student: Outputs, teacher: Outputs, mask: Tensor | None
    ) -> Iterator[tuple[str, str, Tensor, Tensor]]:
        """Every relation of every pair of layers: what it is of, and the scores of student and teacher."""
        for i, j in self.matched:
            for first, second in dict(PARTS)[self.relations]:
                mine, theirs = (
                    (layer_tensors(side, first)[n - 1], layer_tensors(side, second)[n - 1])
                    for side, n in ((student, i), (teacher, j))
                )
                yield (
                    first,
                    second,
                    relation_scores(*mine, self.heads, mask),
                    relation_scores(*theirs, self.heads, mask),
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student, "values")[-1])
        terms = [
            minilmv2_loss(mine, theirs, mask, "none")
            for _, _, mine, theirs in self.related(student, teacher, mask)
        ]
        return torch.stack(terms).sum(0)
