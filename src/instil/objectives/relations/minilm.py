"""MiniLM: the last layer's attention distributions and value relations."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from instil.core import Card
from instil.functional.hidden_states import Layers
from instil.objectives.relations.minilmv2 import MiniLMv2


class MiniLM(MiniLMv2):
    """Attention transfer and value-relation transfer of the last layer: queries with keys and values with values, in as many heads as both nets have.

    Sum of the two (Wang et al. 2020), each a KL, mean over heads and a sample's tokens.

    ``heads``: attention heads of student and teacher.
    ``layers``: last, uniform (every student layer), or [[student layer, teacher layer]], the first being 1.
    """

    card = Card(
        "MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained transformers",
        "https://arxiv.org/abs/2002.10957",
        "NeurIPS",
        2020,
        source="relations",
        algorithms=("attention",),
        tasks=("text_classification", "classification"),
        deviations="attentions are made of the tapped queries and keys, without a net's position biases; padding neither relates nor is related to",
        equation=r"\frac{1}{A L} \sum_{a=1}^{A} \sum_{x=1}^{L} \left[ \mathrm{KL}\left( \alpha^t_{ax} \Vert \alpha^s_{ax} \right) + "
        r"\mathrm{KL}\left( \rho^t_{ax} \Vert \rho^s_{ax} \right) \right], \quad \alpha_a = \mathrm{softmax}\left(\tfrac{Q_a "
        r"K_a^\top}{\sqrt{d}}\right), \quad \rho_a = \mathrm{softmax}\left(\tfrac{V_a V_a^\top}{\sqrt{d}}\right)",
        use="For transformers of the same number of attention heads and any widths and depths, before any task: no labels, no parameters, no "
        "map between layers. Only the last layer is taught.",
        pitfalls="Both nets need the same tokenizer and the same tokens. Queries, keys and values must be tapped before they are cut into heads; "
        "memory grows with the square of the length. Peers average the two terms, where the paper sums them. Where the head counts differ "
        "take minilmv2.",
    )

    def __init__(self, heads: Annotated[int, Ge(1)] = 12, layers: Layers = "last"):
        super().__init__(heads, "qk_vv", layers)
