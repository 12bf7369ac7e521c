"""Knowledge distillation for multi-label and binary outputs, with one sigmoid per class."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import Doc

from instil.core import Card, Positive
from instil.objectives.logits.kd import KD


class MultiLabelKD(KD):
    """KL divergence between the sigmoids of each class, averaged over classes; logits (..., C)."""

    card = Card(
        "Multi-Label Knowledge Distillation",
        "https://arxiv.org/abs/2308.06453",
        "ICCV",
        2023,
        source="logits",
        labels=("multi", "binary"),
        deviations="The loss is a mean over the classes; the paper's multi-label logits "
        "distillation is a sum, which is C times this value. The paper's label-wise embedding "
        "distillation is not included.",
        equation=r"\frac{T^2}{C} \sum_{c=1}^{C} \Big( \sigma^t_c \log "
        r"\frac{\sigma^t_c}{\sigma^s_c} + (1 - \sigma^t_c) \log \frac{1 - \sigma^t_c}{1 - "
        r"\sigma^s_c} \Big), \quad \sigma_c = \frac{1}{1 + e^{-z_c / T}}",
        use="For multi-label data and for a single binary logit. Each class is an independent "
        "binary decision, whereas the softmax of kd would make classes compete that can occur "
        "together. It needs no labels and has no parameters.",
        pitfalls="Most classes are absent and easy, and they dominate the mean. The authors' "
        "weight of 10 belongs to a sum over the classes; it corresponds to 10 C here. Train "
        "both networks with sigmoids: the level of softmax logits is arbitrary.",
    )

    def __init__(self, temperature: Annotated[Positive, Doc("temperature of the sigmoids")] = 1.0):
        super().__init__(temperature, multi_label=True)
