"""Task and data of a recipe, shared by all arms of an experiment."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

from instil.data import labels, samplers
from instil.data.aligned import of_teacher
from instil.data.loader import Loader
from instil.data.mixup import Mixup
from instil.data.partners import Partners
from instil.data.samples import Facts, Samples
from instil.data.splits import Splits
from instil.data.stream_loader import StreamLoader
from instil.data.streams import Stream
from instil.engine import rank, world_size
from instil.experiment.augmentation import augmentation_for
from instil.experiment.compression import LabelledSamples
from instil.experiment.network_inputs import (
    check_samples,
    exported_student,
    input_shape,
    network_facts,
)
from instil.experiment.recipe_checks import (
    check_baselines,
    check_drawn_noise,
    check_several_classes,
)
from instil.experiment.recipe_metrics import add_metrics
from instil.experiment.sources import set_collation, set_row_width, surrogate_samples
from instil.experiment.stage_data import check_stage_data, first_label_seed, load_data
from instil.experiment.stage_samples import StageData
from instil.experiment.task_builder import build_task
from instil.recipe import error_context, stages
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig


@dataclass
class Experiment:
    """Task and data of a recipe, shared by all arms.

    Args:
        recipe: the recipe, or one stage of it.
        task: task of the recipe.
        splits: data of the recipe.
        sources: data of ``teacher.data`` and ``data.surrogate``, by source and options.
        warnings: sentences about probable mistakes in the recipe, found on the first batch.
        label_seed: seed of the choice of labelled samples; None: the seed of each run.
        data_of_stages: data of each stage; ``splits`` are those of the last. Empty for a stage.
        stage_data: data of this stage; None for the whole recipe.
    """

    recipe: Recipe
    task: Any
    splits: Splits
    sources: dict[str, Splits] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    label_seed: int | None = None
    data_of_stages: tuple[StageData, ...] = ()
    stage_data: StageData | None = None

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
        data_of_stages = load_data(recipe, trust_code)
        task = build_task(recipe)
        for data in data_of_stages:
            set_collation(data.splits, task)
            set_row_width(data.splits, recipe)
        add_metrics(task, recipe)
        task.set_classes(data_of_stages[-1].splits.classes)
        with error_context("task"):
            task.set_data(data_of_stages[-1].splits)
        experiment = cls(
            recipe,
            task,
            data_of_stages[-1].splits,
            label_seed=first_label_seed(recipe),
            data_of_stages=tuple(data_of_stages),
        )
        experiment._check_data()
        check_baselines(task, recipe)
        check_drawn_noise(task, recipe)
        check_stage_data(recipe, data_of_stages)
        with error_context("export"):
            if recipe.export:
                task.check_export()
        for stage in experiment.stages:
            augmentation_for(stage.recipe, stage.visible_samples, task)
        return experiment

    def _check_data(self) -> None:
        """Check the data of all stages against the task; shared data are checked once."""
        student = exported_student(self.recipe)
        checked: list[Splits] = []
        for index, stage in enumerate(self.stages):
            if any(stage.splits is splits for splits in checked):
                continue
            checked.append(stage.splits)
            is_own = stage.recipe.data != self.recipe.data
            with error_context(f"stages.{index}" if is_own else ""):
                samples = stage.visible_samples
                check_samples(self.task, stage.splits, samples, stage.recipe, student)
                with error_context("data"):
                    check_several_classes(stage.splits, self.recipe)

    @property
    def stages(self) -> list[Experiment]:
        """Experiment of each stage, with the same task and the data and options of the stage."""
        recipes = stages(self.recipe)
        if not self.data_of_stages:
            return [dataclasses.replace(self, recipe=recipe) for recipe in recipes]
        # Rounds of pruning that a search adds to its recipe have the same data.
        repeats = len(recipes) // len(self.data_of_stages)
        own = dataclasses.replace(self, data_of_stages=())
        return [
            dataclasses.replace(own, recipe=recipe, splits=data.splits, stage_data=data)
            for recipe, data in zip(recipes, self.data_of_stages * repeats, strict=True)
        ]

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
            return surrogate_samples(images, self.splits, self.recipe, self.sources)

    @property
    def notes(self) -> list[str]:
        """Sentences about samples that the source left out or changed."""
        notes = list(self.splits.notes)
        for part in (self.splits.train, self.splits.validation, self.splits.test):
            notes += getattr(part, "notes", ())
        return notes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the student's first input of a sample: channels, height and width of images."""
        return input_shape(self.task, self.visible_samples, exported_student(self.recipe))

    @property
    def facts(self) -> Facts:
        """Arguments for builders of networks, such as the number of classes."""
        return self.visible_samples.facts

    def facts_for(self, config: ModelConfig) -> Facts:
        """Arguments for the builder of a network, for the inputs that it reads."""
        return network_facts(self.for_network(config).visible_samples, config)

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

    def labelled_samples(self, seed: int) -> LabelledSamples:
        """Return the samples and losses from which compressions choose parts."""
        return LabelledSamples(self.train_data(seed), self.task.label_objectives)

    def loader(
        self,
        samples: Samples,
        seed: int = 0,
        shuffle: bool = True,
        accumulate: int = 1,
        sampler: str = "shuffled",
        with_mixing: bool = False,
    ) -> Loader | StreamLoader:
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
        augmented = self._augmented(samples, seed, with_mixing)
        batches = (self.recipe.data.batch_size, seed, rank(), world_size(), accumulate)
        if isinstance(samples, Stream):
            return StreamLoader(samples, *batches, workers=workers, **augmented)
        with contextlib.nullcontext() if sampler == "shuffled" else error_context("data.sampler"):
            composed = {"sampler": samplers.find(sampler), **augmented}
            return Loader(samples, *batches, workers=workers, **composed)

    def _augmented(self, samples: Samples, seed: int, with_mixing: bool) -> dict[str, Any]:
        """Augmentation of training batches and its number of views, as arguments of a loader."""
        options = self.recipe.data.augment
        augment = augmentation_for(self.recipe, samples, self.task, seed)
        if with_mixing and options.mixup:
            augment = Mixup(samples, augment, seed)
        if with_mixing and options.partner:
            augment = Partners(samples, augment, seed)
        views = options.views
        # A store has outputs for a finite number of views; the default is one.
        if views is None and self.recipe.store is not None:
            views = 1
        return {"augment": augment, "views": views}
