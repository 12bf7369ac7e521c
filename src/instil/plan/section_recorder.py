"""Teacher outputs for one section of a store, in the form in which they are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from instil.core import Batch, Outputs, Teacher, batch_size
from instil.data.loader import Loader
from instil.data.samples import Samples
from instil.engine import init_distributed
from instil.experiment.augmentation import augmentation_for
from instil.experiment.experiment import Experiment
from instil.experiment.padded_heads import recorded_tokens
from instil.experiment.training_options import autocast_context
from instil.items import to_device
from instil.recipe.errors import error_context
from instil.store.codecs import Codec, encode_outputs
from instil.tasks.language import Language
from instil.tasks.seq2seq import Seq2Seq


@dataclass(frozen=True)
class SectionPlan:
    """Content of one section of a store.

    Args:
        name: name of the section: ``train``, ``plain``, ``validation`` or ``test``.
        samples: samples whose teacher outputs are recorded.
        num_views: number of augmented views of each sample, 1 without augmentation.
        roles: teacher outputs to record.
        codec: codec of the outputs.
        codec_size: number of classes that the codecs ``top`` and ``sampled`` record.
        is_augmented: whether the samples are augmented as in training.
        digest: digest of the samples with their labels; None if the store is bound to them.
    """

    name: str
    samples: Samples
    num_views: int
    roles: tuple[str, ...]
    codec: Codec
    codec_size: int
    is_augmented: bool
    digest: str | None = None

    @property
    def num_outputs(self) -> int:
        """Number of teacher outputs in the section: one per sample and view."""
        return len(self.samples) * self.num_views


class SectionRecorder:
    """Batches of a section, and the encoded teacher outputs for them.

    Args:
        experiment: experiment of the recipe, with the live teacher.
        teacher: the trained teacher.
        section: content of the section.
    """

    def __init__(self, experiment: Experiment, teacher: Teacher, section: SectionPlan):
        self.experiment = experiment
        self.teacher = teacher
        self.section = section
        # Rounded up, as in training: a matrix product of another batch size may round differently.
        # With the same size, each output equals that of the live teacher to the last bit.
        recipe = experiment.recipe
        self.batch_size = -(-recipe.data.batch_size // recipe.train.accumulate)
        self._augment = (
            augmentation_for(experiment.recipe, section.samples, experiment.task)
            if section.is_augmented
            else None
        )

    def batches(self, view: int, start: int, end: int) -> Iterable[Batch]:
        """Load the samples ``start`` to ``end`` (exclusive) of the section, in one view."""
        loader = Loader(
            self.section.samples.subset(torch.arange(start, end)),
            self.batch_size,
            shuffle=False,
            workers=self.experiment.recipe.data.workers,
            augment=self._augment,
        )
        loader.set_epoch(view)
        return loader

    def encoded_outputs(self, batch: Batch) -> Outputs:
        """Compute the teacher outputs for a batch and encode them with the section's codec.

        The result may have more rows than the batch: a small batch is filled up with repeated
        rows, because every batch has the size of those in training.
        """
        full_batch = self._repeat_rows(batch)
        with autocast_context(self.experiment.recipe.train):
            outputs = self.teacher(to_device(full_batch, init_distributed()))
        recorded = {role: outputs[role] for role in self.section.roles}
        if self.section.codec in ("top", "sampled"):
            recorded = recorded_tokens(self.experiment, recorded)
        codec = self.section.codec
        with error_context("store.codec" if codec == "float16" else "store.size"):
            return encode_outputs(recorded, full_batch, codec, self.section.codec_size)

    def counted_tokens(self, batch: Batch) -> Tensor | None:
        """Return the mask (N, T) of the tokens whose outputs training reads, or None for all."""
        # Evaluation reads other tokens, too; a teacher of another tokenizer has other positions.
        if not self.section.is_augmented or "teacher_valid" in batch:
            return None
        is_text = isinstance(self.experiment.task, (Language, Seq2Seq))
        return batch["valid"] if is_text and "valid" in batch else None

    def _repeat_rows(self, batch: Batch) -> Batch:
        """Repeat the rows of a batch until it has the batch size of training."""
        num_rows = batch_size(batch)
        rows = torch.arange(max(self.batch_size, num_rows)) % num_rows
        full_batch: Batch = {}
        for key, value in batch.items():
            has_rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == num_rows
            full_batch[key] = value[rows] if has_rows else value
        return full_batch
