"""PATE: distillation from noisy votes of teachers that were trained on private data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import Batch, Card, Objective, Objectives, Scheme, Teacher, Update


class PATE(Scheme):
    """Training on the teacher's predictions as labels (Papernot et al. 2017, section 2.2).

    The labels of the student's own data are not used. The teacher is private_votes, which returns
    ``label``. Samples without a vote have no label; only objectives without labels use them.

    Raises:
        ValueError: without a teacher, or if the teacher returns no ``label``.
    """

    card = Card(
        "Semi-supervised knowledge transfer for deep learning from private training data",
        "https://arxiv.org/abs/1610.05755",
        "ICLR",
        2017,
        source="offline",
        algorithms=("multi-teacher", "privacy"),
        labels=("single",),
        deviations="The student of the paper is a GAN that also learns from the samples without a "
        "vote. Here it learns from the labelled ones by the objectives of the recipe.",
        equation=r"\mathrm{CE}(z^s(x), \hat y(x)), \quad "
        r"\hat y(x) = \arg\max_c \left( n_c(x) + \mathrm{noise} \right)",
        use="To publish a student of private data, with a bound on the information about any one "
        "record.",
        pitfalls="The votes pay if few public samples have a label of their own, which "
        "data.num_labeled sets for the plain student. With all public labels it is better, and no "
        "private competitor. The validation and test scores in the report are not private.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        if teacher is None:
            raise ValueError(
                "teacher: pate learns from votes. Expected the teacher private_votes, got no "
                "teacher. Set teacher: private_votes"
            )

    def build(self, batch: Batch) -> None:
        votes = self.teacher_outputs(batch)
        if "label" not in votes:
            raise ValueError(
                "teacher: pate learns from votes. Expected 'label' in the teacher's outputs, got "
                f"{', '.join(votes)}. Set teacher: private_votes"
            )
        # The votes become labels, so no objective reads the teacher.
        self.objectives.build(self.student(batch), {})

    def before_step(self, batch: Batch) -> Batch:
        return batch | {"label": self.teacher_outputs(batch)["label"]}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Number of votes of each loss.

        An own method, because such a scheme is trained on all samples: the votes are labels of
        samples that have no other.
        """
        return super().counts(batch)

    def step(self, batch: Batch) -> Iterator[Update]:
        update: Update = self.objectives(self.student(batch), {}, batch)
        yield update
