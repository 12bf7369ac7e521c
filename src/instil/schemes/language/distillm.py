"""Given text first; the student's own, much of it from a memory, as soon as the student gets worse on text it does not learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Teacher,
    Update,
    at_progress,
    keyed_uniform,
)
from instil.generation.reader import index_batch
from instil.generation.sampling import step_uniform
from instil.modules.synthetic_memory import SyntheticMemory
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens

CHOOSING, REPLAYING, WATCHING = 3201, 3202, 3203
"""Salts."""
TEXT = ("input_ids", "attention_mask", "valid")


class DistiLLM(GenerativeScheme):
    """A step is on the student's own text with a ``student_text_prob`` that rises as needed (Ko et al. 2024, Algorithm 1 and section 3.2).

    Own text is written anew with a probability that falls to 0 at the end of training, else drawn from what was written before (off-policy). The
    chance rises by ``prob_increment`` each time that the loss on rows held out of the training is higher than before by ``tolerance``. The paper's
    objective     is skewed_forward_kl or skewed_reverse_kl; one that needs labels sees the given text alone.

    ``memory``: texts of its own that are kept, the last ones; while there are fewer, all own text is new.
    ``initial_prob``: of own text, at the beginning.
    ``prob_increment``: of the chance.
    ``tolerance``: how much worse the watched loss must get.
    ``held_out``: the share of the samples that is watched, and not learned from.
    ``every``: steps between two looks at the watched loss, which is the mean of those steps.
    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
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
        equation=r"D(p^t \Vert p^s)(y | x), \quad y \sim \begin{cases} p^s & \phi (1 - t / T) \\ \mathrm{memory} & \phi\, t / T \\ "
        r"\mathrm{data} & 1 - \phi \end{cases}, \quad \phi \leftarrow \phi + 0.1 \text{ when the watched loss rises}",
        use="Own text at a fraction of the time that on_policy takes, and no share to be chosen.",
        pitfalls="Where the loss on held-out text never rises no own text is ever written: a larger initial_prob begins with some. Remembered texts "
        "are by the student as it was.",
        deviations="The watched loss is of rows held out of the training data, over the steps between two looks; in the paper it is of all "
        "validation data. It is compared with the look before, as in the paper; the authors' code compares with the last at which the chance rose.",
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
        memory: Annotated[int, Ge(1)] = 1000,
        initial_prob: Annotated[float, Ge(0), Le(1)] = 0.0,
        prob_increment: Annotated[float, Gt(0), Le(1)] = 0.1,
        tolerance: NonNegative = 0.1,
        held_out: Annotated[float, Gt(0), Lt(1)] = 0.1,
        every: Annotated[int, Ge(1)] = 50,
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 1.0,
        top_p: Share = 1.0,
        vocabulary: Tokens | None = None,
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            end,
            min_prompt_tokens,
            max_new_tokens,
            temperature,
            top_p,
            vocabulary,
        )
        self.memory, self.initial_prob, self.prob_increment, self.tolerance = (
            memory,
            initial_prob,
            prob_increment,
            tolerance,
        )
        self.held_out, self.every = held_out, every
        self.replay: SyntheticMemory | None = None
        self.register_buffer("student_text_prob", torch.tensor(at_progress(initial_prob, {})))
        self.register_buffer("before", torch.tensor(torch.inf))
        self.register_buffer("seen", torch.zeros(len(self.objectives.weights), 2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build(self, batch: Batch) -> None:
        super().build(batch)
        self.replay = SyntheticMemory(self.memory, **{key: batch[key].long() for key in TEXT})

    def before_step(self, batch: Batch) -> Batch:
        assert self.replay is not None
        watched = (
            keyed_uniform(batch | {"step": torch.tensor(0)}, 1, WATCHING).squeeze(1) < self.held_out
        )
        learned = batch | {"valid": batch["valid"] & ~watched[:, None]}
        draw, chance = step_uniform(batch, CHOOSING), float(self.student_text_prob)
        own, new = (
            draw < chance,
            draw < chance * (1 - float(batch.get("progress", 0.0)))
            or bool(self.replay.pushed < self.memory),
        )
        if own:
            learned = self.student_text(learned) if new else self.replayed(learned)
        return learned | {
            "watched": index_batch(batch, watched.nonzero().squeeze(1)),
            "written": own and new,
        }

    def replayed(self, batch: Batch) -> Batch:
        """Texts written before, one for each row that counts; without labels."""
        assert self.replay is not None
        text = self.replay.draw(batch, REPLAYING)
        counts = batch["valid"].any(1, keepdim=True)
        return (
            batch
            | text
            | {
                "valid": (text["valid"] > 0) & counts,
                "label": torch.full_like(batch["label"], -100),
            }
        )

    def step(self, batch: Batch) -> Iterator[Update]:
        update = self.compute_losses(batch)
        update.state_updates["watched"] = self.watch(batch["watched"])[None]
        if batch["written"]:
            update.state_updates |= {f"written.{key}": batch[key] for key in TEXT}
        yield update
        del update

    @torch.no_grad()
    def watch(self, batch: Batch) -> Tensor:
        """Of each objective on these rows the sum and the count."""
        if not len(batch["input_ids"]):
            return torch.zeros_like(self.seen)
        counts, losses = self.objectives.counts(batch), self.compute_losses(batch).losses
        return torch.stack(
            [
                torch.stack([losses[name] * counts[name], counts[name]])
                for name in self.objectives.weights
            ]
        )

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        written = {
            key: gathered_rows.pop(f"written.{key}")
            for key in TEXT
            if f"written.{key}" in gathered_rows
        }
        watched = gathered_rows.pop("watched").sum(0)
        super().after_step(gathered_rows)
        if written and self.replay is not None:
            counts = written["valid"].any(1)
            self.replay.push(**{key: rows[counts] for key, rows in written.items()})
        self.seen += watched
        self.steps += 1
        look = self.steps % self.every == 0
        loss = (self.seen[:, 0] / self.seen[:, 1].clamp_min(1)).sum()
        rises = look & (loss > self.before + self.tolerance)
        self.student_text_prob.copy_(
            torch.where(
                rises,
                (self.student_text_prob + self.prob_increment).clamp_max(1),
                self.student_text_prob,
            )
        )
        self.before.copy_(torch.where(look, loss, self.before))
        self.seen.mul_(~look)
