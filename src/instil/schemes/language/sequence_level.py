"""What the teacher writes is what the student reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, NonNegative, Objective, Objectives, Teacher, Update
from instil.generation.reader import index_batch
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.writer import GenerativeScheme, Share, Token, Tokens

TEXT = ("input_ids", "attention_mask", "valid", "token")
"""What is remembered of a text."""


class SequenceLevel(GenerativeScheme):
    """The student learns from texts that the teacher writes after the prompts (Kim & Rush 2016, section 3.2), each of them once.

    The written tokens are the labels: the objective is cross_entropy, beside which forward_kl is the paper's word-level loss on the same text.
    Texts depend on seed and sample alone and are remembered.

    ``end``: the token that ends a text; in a recipe null is that of the data's tokenizer.
    ``min_prompt_tokens``: of a row at least so many tokens are read, not written.
    ``max_new_tokens``: of a text; null: as many as the row is long.
    ``temperature``: of what is written; 0 is the likeliest token.
    ``top_p``: it is one of the likeliest that have so much probability together.
    ``vocabulary``: number of tokens that may be written, where heads are padded; in a recipe null is that of the data's tokenizer.
    """

    card = Card(
        "Sequence-Level Knowledge Distillation",
        "https://arxiv.org/abs/1606.07947",
        "EMNLP",
        2016,
        source="offline",
        tasks=("language",),
        labels=("single",),
        equation=r"-\log p^s(\hat y | x), \quad \hat y \approx \arg\max_y p^t(y | x)",
        use="The teacher's texts are simpler than those of people, and a small student can learn them whole; it needs no answers in the data.",
        pitfalls="The student never sees its own mistakes, nor what else the teacher held possible. Likelihood of the data's own texts may fall: "
        "judge by what the student writes.",
        deviations="The teacher takes the likeliest token each time (a beam of 1), in the paper the best of a beam of 5; temperature 1 draws.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        end: Token | None = None,
        min_prompt_tokens: Tokens = 1,
        max_new_tokens: Tokens | None = None,
        temperature: NonNegative = 0.0,
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
        self.known: dict[
            int, Tensor
        ] = {}  # (4, T) a row; no state: it is written again, the same, where it is lost

    def before_step(self, batch: Batch) -> Batch:
        text = self.teachers_text(batch)
        return text | {"label": text["token"]}

    def teachers_text(self, batch: Batch) -> Batch:
        """What the teacher writes after the prompts, remembered by ``index``; nothing after those that do not count."""
        counts, index = batch["valid"].any(1), batch["index"].tolist()
        if new := [
            row
            for row, wanted in enumerate(counts.tolist())
            if wanted and index[row] not in self.known
        ]:
            text = self._written(
                index_batch(batch, torch.tensor(new, device=counts.device))
                | {"step": torch.tensor(0)}
            )
            packed = torch.stack([text[key].long() for key in TEXT], 1).cpu()
            self.known.update(zip((index[row] for row in new), packed, strict=True))
        given = batch | {
            "valid": torch.zeros_like(batch["valid"]),
            "token": torch.full_like(batch["input_ids"], UNLABELLED),
        }
        nothing = torch.zeros(len(TEXT), batch["input_ids"].shape[1], dtype=torch.int64)
        rows = torch.stack([self.known.get(number, nothing) for number in index], 1).to(
            counts.device
        )
        return batch | {
            key: torch.where(counts[:, None], text.to(given[key].dtype), given[key])
            for key, text in zip(TEXT, rows, strict=True)
        }

    def _written(self, batch: Batch) -> Batch:
        assert self.teacher is not None
        return self.generate_with(
            batch,
            [self.teacher],
            lambda logits, numbers: sample_tokens(
                logits[0], numbers[:, 0], *self.sampling_now(batch)
            ),
        )

    def step(self, batch: Batch) -> Iterator[Update]:
        teacher = self.teacher_outputs(batch) if self.objectives.reads("teacher") else {}
        update: Update = self.objectives(self.student(batch), teacher, batch)
        yield update
