"""Rationale consistency: answers that follow also from wrong rationales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from torch import nn
from typing_extensions import Doc

from instil.core import Card, Objective, Objectives, Positive, Teacher
from instil.schemes.bases.two_tasks import TwoTasks


class RationaleConsistency(TwoTasks):
    """Training on rationales with their answers and on counterfactual ones (Wang et al. 2023).

    The objectives, such as cross_entropy, apply to the rationale and the answer. The loss
    ``counterfactual`` is the cross-entropy of the answer that a wrong rationale leads to; the
    wrong rationale itself is an input. These rows have keys that begin with ``counterfactual_``.
    """

    card = Card(
        "SCOTT: Self-Consistent Chain-of-Thought Distillation",
        "https://arxiv.org/abs/2305.01879",
        "ACL",
        2023,
        source="offline",
        tasks=("language",),
        labels=("single",),
        equation=r"-\log p^s(r, y | \mathrm{[Factual]}\, x) - "
        r"\lambda \log p^s(y' | \mathrm{[Counterfactual]}\, x, r')",
        use="For students that write a rationale before the answer, where the rationale must be "
        "the reason of the answer, so that it can be checked or corrected.",
        pitfalls="The accuracy is that of the same rationales without counterfactual ones at best. "
        "The data need a wrong rationale and its answer for each prompt.",
        deviations="Rationales and counterfactual ones are part of the data; the paper gets them "
        "from a large language model by contrastive decoding. The wrong rationale stands in the "
        "prompt; the paper's encoder-decoder has it as the beginning of the decoder's text.",
    )
    scheme_name: ClassVar[str] = "rationale_consistency"
    loss_name: ClassVar[str] = "counterfactual"
    rationale_use: ClassVar[str] = "counterfactual"

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        counterfactual_weight: Annotated[
            Positive, Doc("weight of the loss ``counterfactual``; 1 in the paper")
        ] = 1.0,
    ):
        super().__init__(student, teacher, objectives, counterfactual_weight)
