"""MiniLM: attention distributions and value relations of the last layer."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from typing_extensions import Doc

from instil.core import Card
from instil.functional.hidden_states import Layers
from instil.objectives.relations.minilmv2 import MiniLMv2


class MiniLM(MiniLMv2):
    """Agreement of the attention distributions and the value relations of the last layer.

    Sum of the two KL divergences (Wang et al. 2020), each a mean over the heads and the tokens of
    a sample. The numbers of attention heads must be equal.
    """

    card = Card(
        "MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained "
        "transformers",
        "https://arxiv.org/abs/2002.10957",
        "NeurIPS",
        2020,
        source="relations",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="Attention is computed from the tapped queries and keys, without position "
        "biases. Padding takes no part in the relations.",
        equation=r"\frac{1}{A L} \sum_{a=1}^{A} \sum_{x=1}^{L} \left[ \mathrm{KL}\left( "
        r"\alpha^t_{ax} \Vert \alpha^s_{ax} \right) + \mathrm{KL}\left( \rho^t_{ax} \Vert "
        r"\rho^s_{ax} \right) \right], \quad \alpha_a = \mathrm{softmax}\left(\tfrac{Q_a "
        r"K_a^\top}{\sqrt{d}}\right), \quad \rho_a = \mathrm{softmax}\left(\tfrac{V_a "
        r"V_a^\top}{\sqrt{d}}\right)",
        use="For transformers with the same number of attention heads and any widths and depths, "
        "before any task. It needs no labels, no parameters and no map between layers, because "
        "only the last layer is distilled.",
        pitfalls="Both networks need the same tokenizer and the same tokens. Tap queries, keys "
        "and values before they are split into heads; memory grows with the square of the length. "
        "Other libraries average the two terms, while the paper sums them. If the numbers of "
        "heads differ, use minilmv2.",
    )

    def __init__(
        self,
        heads: Annotated[int, Ge(1), Doc("number of attention heads of student and teacher")] = 12,
        layers: Annotated[
            Layers,
            Doc(
                "last, uniform (every student layer), or [[student layer, teacher layer], ...], "
                "tapped layers counted from 1"
            ),
        ] = "last",
    ):
        super().__init__(heads, "qk_vv", layers)
