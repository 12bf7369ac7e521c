"""MiniLMv2: self-attention relations of queries, keys and values, in equal numbers of heads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, to_float32
from instil.functional.choices import require_choice
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
from instil.items import Items

Relations = Literal["qq_kk_vv", "qk_vv"]
PARTS: tuple[tuple[Relations, tuple[tuple[str, str], ...]], ...] = (
    ("qq_kk_vv", (("queries", "queries"), ("keys", "keys"), ("values", "values"))),
    ("qk_vv", (("queries", "keys"), ("values", "values"))),
)
MASKED = -1e30
"""Score of a padded key: finite, so that differences of masked scores are not NaN."""


def relation_scores(
    first: Tensor, second: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Scaled dot products between the tokens of two tensors, per relation head (Wang et al. 2021).

    Args:
        first: (N, L, D), for example the queries.
        second: (N, L, D), for example the keys.
        heads: number of relation heads of width D / heads.
        mask: (N, L); 1 for a token, 0 for padding, which no token is related to.

    Returns:
        Scores (N, heads, L, L).

    Raises:
        ValueError: if the shapes differ or ``heads`` does not divide the width.
    """
    if first.ndim != 3 or first.shape != second.shape or first.shape[-1] % heads:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(
            f"heads: {shapes} cannot be related by {heads} heads. Expected two tensors of one "
            "shape (samples, tokens, width) whose width is divisible by heads."
        )
    first, second = replace_padding(first, mask), replace_padding(second, mask)
    first_heads, second_heads = (
        to_float32(states).reshape(*states.shape[:2], heads, -1).transpose(1, 2)
        for states in (first, second)
    )
    scores: Tensor = first_heads @ second_heads.mT / first_heads.shape[-1] ** 0.5
    return scores if mask is None else scores.masked_fill(mask[:, None, None] == 0, MASKED)


def minilmv2_loss(
    student_scores: Tensor,
    teacher_scores: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher || student) of the softmaxes of relation scores (Wang et al. 2021).

    Mean over the heads and the tokens of a sample.

    Args:
        student_scores: (N, heads, L, L); the softmax is over the last dimension.
        teacher_scores: (N, heads, L, L).
        mask: (N, L); 1 for a token, 0 for padding. None: every position is a token.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> minilmv2_loss(torch.zeros(1, 1, 2, 2), torch.eye(2)[None, None])
        tensor(0.1109)
    """
    student_scores, teacher_scores = require_same_shape(
        student_scores, teacher_scores, "minilmv2_loss", 4
    )
    student_scores, teacher_scores = (
        replace_padded_queries(scores, mask) for scores in (student_scores, teacher_scores)
    )
    values = softened_kl(student_scores, teacher_scores).mean(1)
    return apply_reduction(masked_mean(values, mask), reduction)


class MiniLMv2(Objective):
    """Agreement of the self-attention relations of one layer, summed over the kinds of relation.

    ``queries``, ``keys`` and ``values`` are (N, L, D) before they are split into heads: tap the
    linear layers that compute them. There are no parameters, and the widths and numbers of
    attention heads may differ.
    """

    card = Card(
        "MiniLMv2: multi-head self-attention relation distillation for compressing pretrained "
        "transformers",
        "https://arxiv.org/abs/2012.15828",
        "Findings of ACL",
        2021,
        source="relations",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="Padding takes no part in the relations; the paper does not discuss padding.",
        equation=r"\sum_{B \in \lbrace Q, K, V \rbrace} \frac{1}{A L} \sum_{a=1}^{A} "
        r"\sum_{x=1}^{L} \mathrm{KL}\left( R^t_{B,ax} \Vert R^s_{B,ax} \right), \quad R_{B,a} = "
        r"\mathrm{softmax}\left(\tfrac{B_a B_a^\top}{\sqrt{d}}\right)",
        use="For transformers of any widths, depths and numbers of attention heads, before any "
        "task: no labels and no parameters. For a deep teacher, set layers to an upper middle "
        "layer instead of the last.",
        pitfalls="Both networks need the same tokenizer and the same tokens, and relation heads "
        "must divide both widths: 48 divides 384 and 768, but not 128. Memory grows with the "
        "relation heads times the square of the length.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("queries",), ("keys",), ("values",)))
    items = Items(per_sample=True)

    def __init__(
        self,
        heads: Annotated[
            int,
            Ge(1),
            Doc(
                "number of relation heads of both sides, a divisor of both widths; "
                "48 for a base-size teacher, 64 for a large one"
            ),
        ] = 48,
        relations: Annotated[
            Relations,
            Doc(
                "qq_kk_vv: queries, keys and values, each with themselves; "
                "qk_vv, as in MiniLM: queries with keys, and values with values"
            ),
        ] = "qq_kk_vv",
        layers: Annotated[
            Layers,
            Doc(
                "last, uniform (every student layer), or [[student layer, teacher layer], ...], "
                "tapped layers counted from 1; the paper uses [[6, 21]] for a large teacher"
            ),
        ] = "last",
    ):
        super().__init__()
        require_choice("relations", relations, list(dict(PARTS)))
        self.heads = heads
        self.relations = relations
        self.layers = layers
        self.matched: list[tuple[int, int]] = []
        self.plan: list[str] = []

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the layers.

        Raises:
            ValueError: if the relation heads do not divide a width, or the tokens differ.
        """
        student_values = layer_tensors(student, "values")
        teacher_values = layer_tensors(teacher, "values")
        self.matched = layer_map(self.layers, len(student_values), len(teacher_values))
        self.plan = []
        for i, j in self.matched:
            description = f"{self.heads} relation heads"
            self.plan.append(
                describe_pair((i, j), student_values[i - 1], teacher_values[j - 1], description)
            )
        for first, second, student_scores, teacher_scores in self.related(student, teacher, None):
            # Widths and heads may differ; only the relations themselves must have the same shape.
            require_same_shape(student_scores, teacher_scores, f"relations of {first} and {second}")

    def related(
        self, student: Outputs, teacher: Outputs, mask: Tensor | None
    ) -> Iterator[tuple[str, str, Tensor, Tensor]]:
        """Yield every relation of every pair of layers.

        Each item holds the names of the two related tensors, the student's scores and the
        teacher's scores.
        """
        for i, j in self.matched:
            for first, second in dict(PARTS)[self.relations]:
                student_scores, teacher_scores = (
                    relation_scores(
                        layer_tensors(outputs, first)[layer - 1],
                        layer_tensors(outputs, second)[layer - 1],
                        self.heads,
                        mask,
                    )
                    for outputs, layer in ((student, i), (teacher, j))
                )
                yield first, second, student_scores, teacher_scores

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mask = token_mask(batch, layer_tensors(student, "values")[-1])
        terms = [
            minilmv2_loss(student_scores, teacher_scores, mask, "none")
            for _, _, student_scores, teacher_scores in self.related(student, teacher, mask)
        ]
        return torch.stack(terms).sum(0)
