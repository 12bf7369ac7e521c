"""DistiLLM: adaptive use of the student's own text, with a replay memory of earlier texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.functional.keyed_random import keyed_uniform
from instil.generation.lockstep import is_sharded
from instil.generation.options import Sampling, SamplingOption
from instil.generation.reader import idle_row, index_batch
from instil.modules.eval_mode import eval_mode
from instil.modules.synthetic_memory import SyntheticMemory
from instil.schemes.bases.writer import GenerativeScheme, is_below_one

REPLAY_STREAM = "scheme.replay"
"""Random stream of the texts drawn from the memory."""
VALIDATION_STREAM = "scheme.watched"
"""Random stream that decides which samples are held out."""
TEXT = ("input_ids", "attention_mask", "valid")
"""Batch keys of a text in the memory."""

Memory = Annotated[
    int,
    Ge(1),
    Doc(
        "number of the student's latest texts in the memory; until it is full, all student "
        "text is newly generated"
    ),
]
InitialProb = Annotated[
    float, Ge(0), Le(1), Doc("probability of student text at the start of training")
]
ProbIncrement = Annotated[
    float, Gt(0), Le(1), Doc("increase of the probability when the validation loss rises")
]
HeldOut = Annotated[
    float, Gt(0), Lt(1), Doc("share of the samples for the validation loss, not trained on")
]
Every = Annotated[
    int, Ge(1), Doc("steps between two checks of the validation loss, the mean over these steps")
]


class DistiLLM(GenerativeScheme):
    """Student text with a probability that rises when the validation loss rises (Ko et al. 2024).

    A step uses the student's own text with probability ``student_text_prob``, which starts at
    ``initial_prob`` and rises by ``prob_increment`` (Algorithm 1 and section 3.2). That text is
    newly generated with a probability that falls to 0 at the end of training, and otherwise drawn
    from earlier texts (off-policy). The paper's objective is skewed_forward_kl or
    skewed_reverse_kl. An objective that needs labels applies to the text of the data only.
    """

    card = Card(
        "DistiLLM: Towards Streamlined Distillation for Large Language Models",
        "https://arxiv.org/abs/2402.03898",
        "ICML",
        2024,
        source="online",
        algorithms=("adaptive",),
        tasks=("language",),
        labels=("single",),
        equation=r"D(p^t \Vert p^s)(y | x), \quad y \sim \begin{cases} p^s & \phi (1 - t / T) \\ "
        r"\mathrm{memory} & \phi\, t / T \\ \mathrm{data} & 1 - \phi \end{cases}, \quad "
        r"\phi \leftarrow \phi + 0.1 \text{ when the validation loss rises}",
        use="For training on the student's own text in a fraction of the time that on_policy "
        "takes. The share of that text need not be chosen.",
        pitfalls="If the loss on held-out text never rises, the student never generates text: a "
        "larger initial_prob starts with some. Texts in the memory come from earlier versions of "
        "the student.",
        deviations="The validation loss is measured on samples held out of the training data, over "
        "the steps between two checks; the paper uses all validation data. It is compared with the "
        "previous check, as in the paper; the authors' code compares with the last check at which "
        "the probability rose.",
    )
    needs_teacher_logits = False
    student_text_prob: Tensor
    before: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        memory: Memory = 1000,
        initial_prob: InitialProb = 0.0,
        prob_increment: ProbIncrement = 0.1,
        tolerance: Annotated[
            NonNegative, Doc("increase of the validation loss that raises the probability")
        ] = 0.1,
        held_out: HeldOut = 0.1,
        every: Every = 50,
        sampling: SamplingOption = Sampling(),
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            sampling,
        )
        self.memory = memory
        self.initial_prob = initial_prob
        self.prob_increment = prob_increment
        self.tolerance = tolerance
        self.held_out = held_out
        self.every = every
        self.replay: SyntheticMemory | None = None
        self.register_buffer("student_text_prob", torch.tensor(float(initial_prob)))
        # Validation loss at the previous check; sum and count of each objective since then.
        self.register_buffer("before", torch.tensor(torch.inf))
        self.register_buffer("seen", torch.zeros(len(self.objectives.weights), 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build(self, batch: Batch) -> None:
        super().build(batch)
        self.replay = SyntheticMemory(self.memory, **{key: batch[key].long() for key in TEXT})

    @property
    def uses_data_text(self) -> bool:
        return is_below_one(self.initial_prob)

    def before_step(self, batch: Batch) -> Batch:
        assert self.replay is not None
        is_held_out = self._is_held_out(batch)
        training = batch | {"valid": batch["valid"] & ~is_held_out[:, None]}
        draw = self.draw_text_source(batch)
        student_text_prob = float(self.student_text_prob)
        use_student_text = draw < student_text_prob
        # One number decides both: below new_text_prob the text is new, up to student_text_prob it
        # is replayed.
        new_text_prob = student_text_prob * (1 - float(batch.get("progress", 0.0)))
        is_new = draw < new_text_prob or bool(self.replay.pushed < self.memory)
        if use_student_text:
            training = self.student_text(training) if is_new else self.replayed_text(training)
        return training | {
            "validation_rows": self._validation_rows(batch, is_held_out),
            "is_new_text": use_student_text and is_new,
        }

    def _validation_rows(self, batch: Batch, is_held_out: Tensor) -> Batch:
        rows = is_held_out.nonzero().squeeze(1)
        # The other processes of a sharded student may have held-out rows.
        if len(rows) or not is_sharded(self.student):
            return index_batch(batch, rows)
        return idle_row(batch)

    def _is_held_out(self, batch: Batch) -> Tensor:
        # A constant step makes the draw depend on seed and sample only: the held-out samples are
        # the same in every epoch.
        at_first_step = batch | {"step": torch.tensor(0)}
        return keyed_uniform(at_first_step, 1, VALIDATION_STREAM).squeeze(1) < self.held_out

    def replayed_text(self, batch: Batch) -> Batch:
        """Replace each row that counts by a text of the memory, without labels.

        Args:
            batch: rows of tokens with ``valid`` and ``label`` (N, T).

        Returns:
            The batch with ``input_ids``, ``attention_mask`` and ``valid`` of the drawn texts.
        """
        assert self.replay is not None
        text = self.replay.draw(batch, REPLAY_STREAM)
        counts = batch["valid"].any(1, keepdim=True)
        replayed = {
            "valid": (text["valid"] > 0) & counts,
            "label": torch.full_like(batch["label"], UNLABELLED),
        }
        return batch | text | replayed

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.compute_losses(batch)
        update.state_updates["validation"] = self.validation_losses(batch["validation_rows"])[None]
        if batch["is_new_text"]:
            update.state_updates |= {f"new_text.{key}": batch[key] for key in TEXT}
        yield update
        del update

    @torch.no_grad()
    def validation_losses(self, batch: Batch) -> Tensor:
        """Compute the sum and the count of each objective on held-out rows.

        Args:
            batch: the held-out rows of a batch; may be empty.

        Returns:
            Sums and counts (number of objectives, 2).
        """
        if not len(batch["input_ids"]):
            return torch.zeros_like(self.seen)
        # Scheduled weights and options have their last values: the change of a schedule would be
        # taken for one of the student.
        batch = batch | {"progress": torch.tensor(1.0)}
        # Losses are means over items. Sums and counts, in contrast, add up over micro-batches and
        # ranks.
        counts = self.objectives.counts(batch)
        # With dropout, two checks of one network would differ.
        with eval_mode(self.student):
            losses = self.compute_losses(batch).losses
        rows = [
            torch.stack([losses[name] * counts[name], counts[name]])
            for name in self.objectives.weights
        ]
        return torch.stack(rows)

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        prefix = "new_text."
        names = [name for name in gathered_rows if name.startswith(prefix)]
        new_text = {name.removeprefix(prefix): gathered_rows.pop(name) for name in names}
        validation = gathered_rows.pop("validation").sum(0)
        super().after_step(gathered_rows)
        if new_text and self.replay is not None:
            # Rows without a generated token, such as held-out ones, are not remembered.
            counts = new_text["valid"].any(1)
            self.replay.push(**{key: rows[counts] for key, rows in new_text.items()})
        self.seen += validation
        self.steps += 1
        self._update_probability()

    def _update_probability(self) -> None:
        # Tensor operations only: reading a value on the host would wait for the device.
        # Without a held-out item since the last check there is no loss to compare.
        is_check = (self.steps % self.every == 0) & (self.seen[:, 1].sum() > 0)
        loss = (self.seen[:, 0] / self.seen[:, 1].clamp_min(1)).sum()
        rises = is_check & (loss > self.before + self.tolerance)
        raised = (self.student_text_prob + self.prob_increment).clamp_max(1)
        self.student_text_prob.copy_(torch.where(rises, raised, self.student_text_prob))
        self.before.copy_(torch.where(is_check, loss, self.before))
        self.seen.mul_(~is_check)
