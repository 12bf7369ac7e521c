"""Task and data of a recipe, shared by all arms of an experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from instil import catalogue
from instil.core import Batch, first_tensor
from instil.data import augmentation, labels, samplers
from instil.data.aligned import of_teacher
from instil.data.loader import Loader
from instil.data.mixup import Mixup
from instil.data.partners import Partners
from instil.data.samples import Facts, Samples
from instil.data.splits import Splits
from instil.data.surrogate_images import SyntheticImages
from instil.engine import rank, world_size
from instil.experiment.recipe_checks import (
    check_baselines,
    check_can_augment,
    check_label_kind,
    check_several_classes,
    common_teacher_tokenizer,
)
from instil.experiment.sources import data_source, surrogate_samples
from instil.recipe import build_options, error_context, stages
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig

Augment = Callable[[Batch], Batch]
"""Augmentation of a batch of training samples."""


@dataclass
class Experiment:
    """Task and data of a recipe, shared by all arms.

    Args:
        recipe: the recipe, or one stage of it.
        task: task of the recipe.
        splits: data of the recipe.
        sources: data of teachers that are trained on other data, by source and options.
        warnings: sentences about probable mistakes in the recipe, found on the first batch.
        label_seed: seed of the choice of labelled samples; None: the seed of each run.
    """

    recipe: Recipe
    task: Any
    splits: Splits
    sources: dict[str, Splits] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    label_seed: int | None = None

    @classmethod
    def from_recipe(cls, recipe: Recipe, trust_code: bool = True) -> Experiment:
        """Load the data of a recipe and check them against its task.

        Args:
            recipe: the recipe.
            trust_code: whether a function of the user may be called for the data.

        Raises:
            RecipeError: for data that cannot be read, or do not fit the task or the baselines.
            UntrustedCode: for data of a user's function without ``trust_code``.
        """
        with error_context("data"):
            splits = data_source(
                recipe.data.name,
                recipe.data.options,
                recipe,
                tokenizer=common_teacher_tokenizer(recipe),
                trust_code=trust_code,
            )
        with error_context("task"):
            task = catalogue.find("task", recipe.task.name)(
                **build_options("task", recipe.task.name, recipe.task.options, "task")
            )
            check_label_kind(task, splits, recipe)
            task.check_data(cls(recipe, task, splits).visible_samples.__getitems__([0]))
        with error_context("data"):
            check_several_classes(splits)
        check_baselines(task, recipe)
        with error_context("export"):
            if recipe.export:
                task.check_export()
        return cls(recipe, task, splits, label_seed=_label_seed(recipe))

    @property
    def stages(self) -> list[Experiment]:
        """Experiment of each stage, with the same task and data and the options of the stage."""
        return [dataclasses.replace(self, recipe=stage) for stage in stages(self.recipe)]

    @property
    def visible_samples(self) -> Samples:
        """Samples that may be inspected: validation samples if ``data.surrogate`` is set."""
        return self.splits.train if self.recipe.data.surrogate is None else self.splits.validation

    @functools.cached_property
    def samples(self) -> Samples:
        """Samples of an epoch of the student."""
        images = self.recipe.data.surrogate
        if images is None:
            return self.splits.train
        with error_context("data.surrogate"):
            return surrogate_samples(images, self.splits, self.recipe)

    @property
    def notes(self) -> list[str]:
        """Sentences about samples that the source left out or changed."""
        notes = list(self.splits.notes)
        for part in (self.splits.train, self.splits.validation, self.splits.test):
            notes += getattr(part, "notes", ())
        return notes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first input of a sample: channels, height and width of an image."""
        inputs = self.visible_samples.inputs(torch.zeros(1, dtype=torch.int64))
        return tuple(first_tensor(inputs).shape[1:])

    @property
    def facts(self) -> Facts:
        """Arguments for builders of networks, such as the number of classes."""
        return self.visible_samples.facts

    def for_network(self, config: ModelConfig) -> Experiment:
        """Return the experiment with the data as a network reads them.

        The texts are in the teacher's tokens for a teacher with its own tokenizer.
        """
        if isinstance(config, TeacherConfig) and config.tokenizer is not None:
            return dataclasses.replace(self, splits=of_teacher(self.splits))
        return self

    def train_data(self, seed: int) -> Samples:
        """Return the student's training samples with ``data.num_labeled`` labels.

        ``seed`` chooses the labelled samples. If a teacher has ``data.num_labeled``, every seed
        has the choice of the first one: the teacher is trained once, and its labels must be those
        of every student.
        """
        num_labeled = self.recipe.data.num_labeled
        label_seed = seed if self.label_seed is None else self.label_seed
        with error_context("data"):
            if num_labeled is None:
                return self.samples
            return labels.few_labels(self.samples, num_labeled, label_seed)

    def loader(
        self,
        samples: Samples,
        seed: int = 0,
        shuffle: bool = True,
        accumulate: int = 1,
        sampler: str = "shuffled",
        with_mixing: bool = False,
    ) -> Loader:
        """Build the loader of training or evaluation batches.

        ``data.sampler``, ``mixup`` and ``partner`` are for the distilled student only. Teachers
        and baselines have the defaults of ``sampler`` and ``with_mixing``.

        Args:
            samples: samples to iterate over.
            seed: seed of the order and the augmentation.
            shuffle: True for training batches, augmented and cut for this rank; False for whole
                batches without augmentation.
            accumulate: number of micro-batches of a batch.
            sampler: name of the sampler that composes the batches.
            with_mixing: whether ``data.augment.mixup`` and ``partner`` apply.

        Raises:
            RecipeError: for an augmentation or a sampler that does not fit the samples.
        """
        workers = self.recipe.data.workers
        # Evaluation needs no gradients: its batch size is that of the task.
        if not shuffle:
            return Loader(samples, self.task.eval_batch_size, shuffle=False, workers=workers)
        options = self.recipe.data.augment
        augment = self.augmentation_for(samples, seed)
        if with_mixing and options.mixup:
            augment = Mixup(samples, augment, seed)
        if with_mixing and options.partner:
            augment = Partners(samples, augment, seed)
        views = options.views
        # A store has outputs for a finite number of views; the default is one.
        if views is None and self.recipe.store is not None:
            views = 1
        with contextlib.nullcontext() if sampler == "shuffled" else error_context("data.sampler"):
            return Loader(
                samples,
                self.recipe.data.batch_size,
                seed,
                rank(),
                world_size(),
                accumulate,
                workers=workers,
                augment=augment,
                views=views,
                sampler=samplers.find(sampler),
            )

    def augmentation_for(self, samples: Samples, seed: int = 0) -> Augment | None:
        """Return the augmentation of training samples, None if they stay as they are.

        It depends on ``index`` and ``view`` of a sample and on ``seed``. With a finite number of
        views it is the same for every seed.

        Args:
            samples: training samples.
            seed: seed of the run.

        Raises:
            RecipeError: for samples that cannot be augmented.
        """
        options = self.recipe.data.augment
        check_can_augment(samples, self.recipe)
        steps: list[Augment] = []
        if isinstance(samples, SyntheticImages):
            steps.append(functools.partial(samples.materialize, seed=seed))
        if options.crop or options.flip:
            # Recorded outputs belong to numbered views, which all seeds must share.
            view_seed = seed if options.views is None else 0
            steps.append(augmentation.Augmentation(options.crop, options.flip, view_seed))
        return functools.partial(_apply_all, steps) if steps else None


def _apply_all(steps: list[Augment], batch: Batch) -> Batch:
    for step in steps:
        batch = step(batch)
    return batch


def _label_seed(recipe: Recipe) -> int | None:
    """First seed if a teacher has a limited number of labels, else None."""
    for stage in stages(recipe):
        for config in stage.teachers:
            if config.data is not None and config.data.num_labeled is not None:
                return recipe.seeds[0]
    return None
