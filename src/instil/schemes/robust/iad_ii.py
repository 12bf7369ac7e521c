"""Two teachers: a robust one that is trusted in part, and one that was never attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Objective, Objectives, Outputs, Positive, Teacher
from instil.schemes.bases.robust import EPSILON, STEP_SIZE, soft_label_loss
from instil.schemes.robust.iad import IAD


class IADII(IAD):
    """IAD from the first of two teachers, the robust one, and beside it the second's answers to the attacked images, as AKD does (Zhu et al. 2022,
    IAD-II). Defaults as in the authors' code, which gives the cross-entropy, of attacked images, the weight that is left, 1/4.

    ``natural``: of the second teacher's part, as a multiple of the first's.
    """

    card = Card(
        "Reliable adversarial distillation with unreliable teachers",
        "https://arxiv.org/abs/2106.04928",
        "ICLR",
        2022,
        source="offline",
        algorithms=("adversarial", "adaptive", "multi-teacher"),
        labels=("single",),
        equation=r"A\, T^2 \mathrm{KL}(p^{r}_T(x_{adv}) \Vert p^s_T(x_{adv})) + (1 - A) \mathrm{KL}(p^s(x) \Vert p^s(x_{adv})) "
        r"+ \tfrac{1}{2} T^2 \mathrm{KL}(p^{n}_T(x_{adv}) \Vert p^s_T(x_{adv})), \quad A = p^{r}_y(x_{adv})^\beta",
        use="A robust teacher and one trained as usual, of the same classes: the second keeps the accuracy on images that nobody attacked.",
        pitfalls="The order of the teachers counts: the robust one comes first. The second teacher is wrong on many attacked images, and is believed "
        "there; a weight too large costs robustness.",
        deviations="Written from the authors' code, where both teachers answer the attacked images and the first one's part is multiplied by the "
        "trust; not checked against the paper's text. There the cross-entropy is of attacked images, here an objective of clean ones; the student is "
        "attacked in eval mode, theirs in train mode.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        weight: NonNegative = 0.5,
        natural: NonNegative = 0.5,
        temperature: Positive = 1.0,
        beta: NonNegative = 0.1,
        answers_to: Literal["clean", "attacked"] = "attacked",
        partial: bool = True,
        trusting: Annotated[float, Ge(0), Le(1)] = 0.2,
        epsilon: NonNegative = EPSILON,
        step_size: Positive = STEP_SIZE,
        attack_steps: Annotated[int, Ge(1)] = 10,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            weight,
            temperature,
            beta,
            answers_to,
            partial,
            trusting,
            epsilon,
            step_size,
            attack_steps,
        )
        self.natural = natural

    def teacher_outputs(self, batch: Batch, grad: bool = False) -> Outputs:
        """The robust teacher's outputs, and both teachers' as ``members``."""
        answers = super().teacher_outputs(batch, grad)
        members = answers.get("members", ())
        if len(members) != 2:
            raise ValueError(
                f"IADII learns from two teachers, a robust one and then one that was never attacked; not from {len(members) or 1}"
            )
        first: Outputs = members[0]
        return answers | first

    def beside(self, attacked: Tensor, answers: Outputs) -> Tensor:
        return self.natural * soft_label_loss(
            attacked, answers["members"][1]["logits"], self.temperature
        )
