"""Sequence-level distillation: the student trains on texts that the teacher generates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Card, Objective, Objectives, Teacher, Update
from instil.generation.options import Sampling, SamplingOption
from instil.generation.reader import index_batch
from instil.generation.sampling import sample_tokens
from instil.schemes.bases.writer import GenerativeScheme

TEXT = ("input_ids", "attention_mask", "valid", "token")
"""Batch keys of a cached text."""


class SequenceLevel(GenerativeScheme):
    """Training on texts that the teacher writes after the prompts (Kim & Rush 2016, section 3.2).

    The generated tokens are the labels and the objective is cross_entropy. With forward_kl in
    addition, the loss also has the paper's word-level term on the same text. A text depends only on
    the seed and the sample, so each one is generated once and cached.
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
        use="For a small student: the teacher's texts are simpler than human texts, and the "
        "student can fit them completely. The data need no answers.",
        pitfalls="The student never sees its own mistakes, nor the alternatives that the teacher "
        "considers likely. The likelihood of the data's own texts may fall: evaluate the texts "
        "that the student writes.",
        deviations="The teacher takes the most likely token at each position (a beam of 1); the "
        "paper takes the best of a beam of 5. Temperature 1 samples.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        sampling: SamplingOption = Sampling(temperature=0.0),
    ):
        super().__init__(
            student,
            teacher,
            objectives,
            sampling,
        )
        # Sample index -> (4, T). Not part of the state: a lost text is generated again, unchanged.
        self.text_cache: dict[int, Tensor] = {}

    def before_step(self, batch: Batch) -> Batch:
        text = self.teacher_text(batch)
        return text | {"label": text["token"]}

    def teacher_text(self, batch: Batch) -> Batch:
        """Replace the text after the prompts by text of the teacher, cached by ``index``.

        Args:
            batch: rows of tokens with ``valid`` (N, T) and ``index`` (N,).

        Returns:
            The batch with the generated ``input_ids``, ``attention_mask``, ``valid`` and ``token``.
            Rows without a valid position get no text.
        """
        has_text = batch["valid"].any(1)
        index = batch["index"].tolist()
        self._fill_cache(batch, has_text, index)
        fallback = batch | {
            "valid": torch.zeros_like(batch["valid"]),
            "token": torch.full_like(batch["input_ids"], UNLABELLED),
        }
        empty = torch.zeros(len(TEXT), batch["input_ids"].shape[1], dtype=torch.int64)
        rows = torch.stack([self.text_cache.get(sample, empty) for sample in index], 1)
        return batch | {
            key: torch.where(has_text[:, None], text.to(fallback[key].dtype), fallback[key])
            for key, text in zip(TEXT, rows.to(has_text.device), strict=True)
        }

    def _fill_cache(self, batch: Batch, has_text: Tensor, index: Sequence[int]) -> None:
        """Generate the texts of the rows that count and are not in the cache."""
        missing = [
            row
            for row, counts in enumerate(has_text.tolist())
            if counts and index[row] not in self.text_cache
        ]
        if not missing:
            return
        rows = index_batch(batch, torch.tensor(missing, device=has_text.device))
        # The random numbers depend on the step; at step 0 a text is the same in every epoch.
        text = self._generate(rows | {"step": torch.tensor(0)})
        # On the CPU, because the cache grows to the texts of the whole data set.
        packed = torch.stack([text[key].long() for key in TEXT], 1).cpu()
        self.text_cache.update(zip((index[row] for row in missing), packed, strict=True))

    def _generate(self, batch: Batch) -> Batch:
        assert self.teacher is not None
        return self.generate_with(
            batch,
            [self.teacher],
            lambda logits, uniforms: sample_tokens(
                logits[0], uniforms[:, 0], *self.sampling.distribution(batch)
            ),
        )

    def step(self, batch: Batch) -> Iterator[Update]:
        # The text is the teacher's signal; cross_entropy on it does not need another forward pass.
        teacher = self.teacher_outputs(batch) if self.objectives.reads("teacher") else {}
        update: Update = self.objectives(self.student(batch), teacher, batch)
        yield update
