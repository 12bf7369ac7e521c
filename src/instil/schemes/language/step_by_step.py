"""Step-by-step distillation: the student also learns the rationale of each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from torch import nn
from typing_extensions import Doc

from instil.core import Card, Objective, Objectives, Positive, Teacher
from instil.schemes.bases.two_tasks import TwoTasks


class StepByStep(TwoTasks):
    """Training on answers and rationales as two tasks (Hsieh et al. 2023, Eqs. 3 and 4).

    The objectives, such as cross_entropy, apply to the answers. The loss ``rationale`` is the
    cross-entropy of the rationale after the same prompt with another prefix. Rows of rationales
    have keys that begin with ``rationale_``.
    """

    card = Card(
        "Distilling Step-by-Step! Outperforming Larger Language Models with Less Training Data and "
        "Smaller Model Sizes",
        "https://arxiv.org/abs/2305.02301",
        "ACL Findings",
        2023,
        source="offline",
        tasks=("language",),
        labels=("single",),
        equation=r"-\log p^s(y | \mathrm{[label]}\, x) - "
        r"\lambda \log p^s(r | \mathrm{[rationale]}\, x)",
        use="For few prompts whose answers have rationales, written by a large language model. The "
        "answers stay short, so the student is as fast as without rationales.",
        pitfalls="The student does not write its rationale before the answer. Where the answer "
        "needs intermediate results that the student cannot compute at once, put the rationale in "
        "front of the answer instead (``data.rationale: answer``).",
        deviations="The rationales are part of the data; the paper gets them from few-shot prompts "
        "of a large language model.",
    )
    scheme_name: ClassVar[str] = "step_by_step"
    loss_name: ClassVar[str] = "rationale"
    rationale_use: ClassVar[str] = "task"

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        rationale_weight: Annotated[
            Positive, Doc("weight of the loss ``rationale``, the paper's lambda")
        ] = 1.0,
    ):
        super().__init__(student, teacher, objectives, rationale_weight)
