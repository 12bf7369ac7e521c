"""Base class of schemes that train on sequences that the teacher finds for the inputs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from instil.core import UNLABELLED, Batch, Objective, Objectives, Scheme, Teacher, Update
from instil.generation.reader import index_batch
from instil.generation.sequences import SEARCH, SequenceSearch, padded_to

DECODER_KEYS = ("decoder_input_ids", "decoder_attention_mask")
"""Keys of a batch that follow from the labels of the data, such as those of transformers."""


class TeacherSequenceScheme(Scheme):
    """Base class of schemes whose labels are sequences of the teacher, found once per sample.

    The sequences depend on the input only. They are not part of the state of a scheme: a lost
    sequence is found again, unchanged.

    Args:
        student: an encoder-decoder, or its ``Net``.
        teacher: the teacher.
        objectives: the objectives by name.
        search: options of the teacher's search.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        search: SequenceSearch,
    ):
        super().__init__(student, teacher, objectives)
        self.search = search
        # Sample index -> (beams, L).
        self.cache: dict[int, Tensor] = {}

    @abstractmethod
    def choose(self, candidates: Tensor, label: Tensor) -> Tensor:
        """Return the label of one sample.

        Args:
            candidates: hypotheses of the teacher (beams, L), the best first, padded with -100.
            label: label of the data (L,), -100 for none.

        Returns:
            (L,); -100 only for a sample that is not used.
        """

    def sharding_obstacle(self) -> str | None:
        """Reason why the nets cannot be sharded."""
        # Searches end at different lengths, and one rank may find all its samples in the cache.
        return "runs the teacher a different number of times on each rank"

    def build(self, batch: Batch) -> None:
        name = type(self).__name__
        if self.teacher is None:
            raise ValueError(f"{name} needs a teacher. Expected an encoder-decoder, got None")
        missing = [key for key in ("label", "valid", "index") if key not in batch]
        if missing or batch["label"].ndim != 2:
            raise ValueError(
                f"{name} needs samples with 'label' and 'valid' (N, L) and 'index', as in the task "
                f"seq2seq. Got {', '.join(batch)}"
            )
        if "candidates" not in self.teacher(batch):
            raise ValueError(
                f"{name} needs candidates of the teacher. Expected an encoder-decoder of the task "
                "seq2seq"
            )
        super().build(batch)

    def before_step(self, batch: Batch) -> Batch:
        """Return the batch with the teacher's sequences as labels, from which decoders read, too.

        Samples without a valid position get none. Labels are as wide as the longest sequence.
        """
        counts = batch["valid"].any(1)
        index: Sequence[int] = batch["index"].tolist()
        self._fill(batch, counts, index)
        label = torch.full_like(batch["label"], UNLABELLED)
        rows = list(label)
        for row, is_counted in enumerate(counts.tolist()):
            if is_counted:
                candidates = self.cache[index[row]].to(label.device)
                rows[row] = self.choose(candidates, batch["label"][row])
        # A sequence may have been found for a batch of another width.
        width = max([label.shape[1], *(int((one != UNLABELLED).sum()) for one in rows)])
        label = torch.stack([padded_to(one, width) for one in rows])
        replaced = {"label": label, "valid": label != UNLABELLED}
        return {key: value for key, value in batch.items() if key not in DECODER_KEYS} | replaced

    def step(self, batch: Batch) -> Iterator[Update]:
        # The labels are the teacher's; cross_entropy needs no other forward pass of the teacher.
        teacher = self.teacher_outputs(batch) if self.objectives.reads("teacher") else {}
        update: Update = self.objectives(self.student(batch), teacher, batch)
        yield update

    def _fill(self, batch: Batch, counts: Tensor, index: Sequence[int]) -> None:
        """Find the sequences of the samples that count and are not in the cache."""
        missing = [
            row
            for row, is_counted in enumerate(counts.tolist())
            if is_counted and index[row] not in self.cache
        ]
        if not missing:
            return
        assert self.teacher is not None
        rows = index_batch(batch, torch.tensor(missing, device=counts.device))
        # On the CPU, because the cache grows to the sequences of the whole data set.
        candidates = self.teacher(rows | {SEARCH: self.search})["candidates"].cpu()
        self.cache.update(zip((index[row] for row in missing), candidates, strict=True))
