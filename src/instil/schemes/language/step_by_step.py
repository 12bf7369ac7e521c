"""Step-by-step distillation: the student also learns the rationale of each answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Objectives, Positive, Scheme, Teacher, Update
from instil.objectives.labels.cross_entropy import CrossEntropy

PREFIX = "rationale_"
"""Prefix of the batch keys of the rows whose answer is the rationale."""


class StepByStep(Scheme):
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

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        rationale_weight: Annotated[
            Positive, Doc("weight of the loss ``rationale``, the paper's lambda")
        ] = 1.0,
    ):
        super().__init__(student, teacher, objectives)
        if self.objectives.balance is not None:
            raise ValueError(
                "balance: step_by_step trains on two tasks, whose losses a balance cannot weigh "
                "against each other. Leave balance out"
            )
        self.rationale_objective = Objectives(
            {"rationale": CrossEntropy()}, {"rationale": rationale_weight}
        )
        self.learners = {"student": ("student", "objectives", "rationale_objective")}

    def build(self, batch: Batch) -> None:
        if f"{PREFIX}input_ids" not in batch:
            raise ValueError(
                "step_by_step needs rows with rationales. Expected 'rationale_input_ids' in the "
                f"batch, got {', '.join(batch)}. Set data.rationale to task"
            )
        super().build(batch)
        self.rationale_objective.build(self.student(rationale_rows(batch)), {})

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | self.rationale_objective.counts(rationale_rows(batch))

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.compute_losses(batch)
        rows = rationale_rows(batch)
        further: Update = self.rationale_objective(self.student(rows), {}, rows)
        update.losses |= further.losses
        yield update


def rationale_rows(batch: Batch) -> Batch:
    """Return the batch with the rows of the rationales in place of those of the answers."""
    own = {
        key.removeprefix(PREFIX): value for key, value in batch.items() if key.startswith(PREFIX)
    }
    shared = {key: value for key, value in batch.items() if not key.startswith(PREFIX)}
    return shared | own
