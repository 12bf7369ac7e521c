"""A student of public samples, each labelled by one noisy vote of teachers whose data are private."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from instil.core import Batch, Card, Objective, Objectives, Scheme, Teacher, Update


class PATE(Scheme):
    """The student learns from the teacher's answers as labels (Papernot et al. 2017, section 2.2), and from no label of its own data.

    The teacher is private_votes, which answers ``label``; where it does not, the sample has none: objectives that need no label still see it.
    """

    card = Card(
        "Semi-supervised knowledge transfer for deep learning from private training data",
        "https://arxiv.org/abs/1610.05755",
        "ICLR",
        2017,
        source="offline",
        algorithms=("multi-teacher", "privacy"),
        labels=("single",),
        deviations="The paper's student is a GAN that also learns from the samples without an answer; here it learns from the answered ones with the "
        "recipe's objectives.",
        equation=r"\mathrm{CE}(z^s(x), \hat y(x)), \quad \hat y(x) = \arg\max_c \left( n_c(x) + \mathrm{noise} \right)",
        use="To publish a student of private data, with a bound on what it tells of any one record.",
        pitfalls="The student alone, trained on the true labels of the public samples, is no private competitor: it shows what the votes cost. The "
        "validation and test scores in the report are not private either.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
    ):
        super().__init__(student, teacher, objectives)
        if teacher is None:
            raise ValueError("the student learns from votes: give it the teacher private_votes")

    def build(self, batch: Batch) -> None:
        answers = self.teacher_outputs(batch)
        if "label" not in answers:
            raise ValueError(
                f"the teacher gives {', '.join(answers)}, and no label; the teacher that votes is private_votes"
            )
        self.objectives.build(self.student(batch), {})

    def before_step(self, batch: Batch) -> Batch:
        return batch | {"label": self.teacher_outputs(batch)["label"]}

    def step(self, batch: Batch) -> Iterator[Update]:
        update: Update = self.objectives(self.student(batch), {}, batch)
        yield update
