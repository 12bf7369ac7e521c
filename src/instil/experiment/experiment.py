"""What all arms of an experiment share: the task and the data of a recipe."""

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
from instil.data.images import ImageData
from instil.data.loader import Loader
from instil.data.mixup import Mixup
from instil.data.partners import Partners
from instil.data.samples import Facts, Samples
from instil.data.splits import Splits
from instil.data.surrogate_images import SurrogateDataset, SyntheticImages
from instil.engine import rank, world_size
from instil.experiment.sources import data_source, surrogate_samples
from instil.recipe import RecipeError, build_options, error_context, label_objectives, stages
from instil.recipe.defaults import DATA_FREE_BASELINES
from instil.recipe.sections import ModelConfig, Recipe, TeacherConfig


@dataclass
class Experiment:
    """What all arms of an experiment share: the task and the data of a recipe."""

    recipe: Recipe
    task: Any
    splits: Splits
    sources: dict[str, Splits] = field(
        default_factory=dict
    )  # of teachers that are trained on other data
    warnings: list[str] = field(default_factory=list)
    """Sentences on what is probably a mistake in the recipe, found on the first batch."""
    label_seed: int | None = None
    """Seed of the choice of labelled samples, the same for every run; None: the seed of each run."""

    @classmethod
    def from_recipe(cls, recipe: Recipe, trust_code: bool = True) -> Experiment:
        """Load the data of a recipe; errors begin with ``data`` or ``task``.

        Without ``trust_code`` data that a function of the user makes are refused (UntrustedCode).
        """
        with error_context("data"):
            splits = data_source(
                recipe.data.name,
                recipe.data.options,
                recipe,
                tokenizer=_teacher_tokenizer(recipe),
                trust_code=trust_code,
            )
        with error_context("task"):
            task = catalogue.find("task", recipe.task.name)(
                **build_options("task", recipe.task.name, recipe.task.options, "task")
            )
            _check_kind(task, splits, recipe)
            task.check_data(cls(recipe, task, splits).visible_samples.__getitems__([0]))
        with error_context("data"):
            if splits.kind == "single" and len(splits.classes) < 2:
                raise ValueError(
                    f"all {splits.train.noun}s are of one class ({splits.classes[0]}); there is nothing to tell apart"
                )
        for name in {"label_smoothing"} & set(recipe.baselines):
            with error_context("baselines"):
                task.check(label_objectives(recipe, name))
        with error_context("baselines"):
            defined, what = (
                (task.baselines[task.kind], task.title)
                if recipe.data.surrogate is None
                else (DATA_FREE_BASELINES, "a student that sees no data")
            )
            if undefined := [name for name in recipe.baselines if name not in defined]:
                raise ValueError(
                    f"{undefined[0]} is undefined for {what}; there is {', '.join(defined)}"
                )
        with error_context("export"):
            if recipe.export:
                task.check_export()
        return cls(recipe, task, splits, label_seed=_label_seed(recipe))

    @property
    def stages(self) -> list[Experiment]:
        """The experiment of each stage: the same task and data, batched and augmented as the stage says."""
        return [dataclasses.replace(self, recipe=stage) for stage in stages(self.recipe)]

    @property
    def visible_samples(self) -> Samples:
        """Samples that may be looked at: to train on, or to validate where the student must do without the former."""
        return self.splits.train if self.recipe.data.surrogate is None else self.splits.validation

    @functools.cached_property
    def samples(self) -> Samples:
        """What an epoch of the student goes through."""
        images = self.recipe.data.surrogate
        if images is None:
            return self.splits.train
        with error_context("data.surrogate"):
            return surrogate_samples(images, self.splits, self.recipe)

    @property
    def notes(self) -> list[str]:
        """Sentences about samples that the source left out or changed."""
        parts = (self.splits.train, self.splits.validation, self.splits.test)
        of_parts = [note for part in parts for note in getattr(part, "notes", ())]
        return [*self.splits.notes, *of_parts]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample's first input: channels, height and width of an image."""
        inputs = self.visible_samples.inputs(torch.zeros(1, dtype=torch.int64))
        return tuple(first_tensor(inputs).shape[1:])

    @property
    def facts(self) -> Facts:
        """What builders of networks are told of the data."""
        return self.visible_samples.facts

    def for_network(self, spec: ModelConfig) -> Experiment:
        """This experiment as a net reads it: of a teacher that has a tokenizer of its own, the same texts in its tokens."""
        own = isinstance(spec, TeacherConfig) and spec.tokenizer is not None
        return dataclasses.replace(self, splits=of_teacher(self.splits)) if own else self

    def train_data(self, seed: int) -> Samples:
        """Training samples of the student with ``data.num_labeled`` labels, chosen by ``seed``.

        Where a teacher has ``data.num_labeled``, every seed has the choice of the first one: the
        teacher is trained once, and its labels must be those of every student.
        """
        count = self.recipe.data.num_labeled
        label_seed = seed if self.label_seed is None else self.label_seed
        with error_context("data"):
            if count is None:
                return self.samples
            return labels.few_labels(self.samples, count, label_seed)

    def loader(
        self,
        samples: Samples,
        seed: int = 0,
        shuffle: bool = True,
        accumulate: int = 1,
        sampler: str = "shuffled",
        mixes: bool = False,
    ) -> Loader:
        """Batches to train on (``shuffle``), augmented and cut for this rank, or to evaluate on, whole and plain.

        ``sampler``: who comes together in a batch; that of the recipe is for the distilled student alone, and so is its mixup (``mixes``).
        """
        workers = self.recipe.data.workers
        if not shuffle:
            return Loader(samples, self.task.eval_batch_size, shuffle=False, workers=workers)
        augment = self.recipe.data.augment
        changed = self.augmentation_for(samples, seed)
        if mixes and augment.mixup:
            changed = Mixup(samples, changed, seed)
        if mixes and augment.partner:
            changed = Partners(samples, changed, seed)
        with contextlib.nullcontext() if sampler == "shuffled" else error_context("data.sampler"):
            drawn = samplers.find(sampler)
            return Loader(
                samples,
                self.recipe.data.batch_size,
                seed,
                rank(),
                world_size(),
                accumulate,
                workers=workers,
                augment=changed,
                views=1
                if self.recipe.store is not None and augment.views is None
                else augment.views,
                sampler=drawn,
            )

    def augmentation_for(self, samples: Samples, seed: int = 0) -> Callable[[Batch], Batch] | None:
        """What happens to a batch of training samples by ``index`` and ``view``; where the views are numbered, the same for every seed."""
        augment = self.recipe.data.augment
        changed = any((augment.crop, augment.flip, augment.mixup, augment.partner))
        if changed and not isinstance(samples, (ImageData, SurrogateDataset)):
            raise RecipeError(
                f"data.augment: only images with a label for the whole can be shifted, mirrored and mixed; '{self.recipe.data.name}' has others"
            )
        changes: list[Callable[[Batch], Batch]] = (
            [functools.partial(samples.materialize, seed=seed)]
            if isinstance(samples, SyntheticImages)
            else []
        )
        if augment.crop or augment.flip:
            changes += [
                augmentation.Augmentation(
                    augment.crop, augment.flip, seed if augment.views is None else 0
                )
            ]
        return (
            functools.partial(functools.reduce, lambda batch, change: change(batch), changes)
            if changes
            else None
        )


def _check_kind(task: Any, splits: Splits, recipe: Recipe) -> None:
    """ValueError where the labels are not of the kind that the task learns; names what to change."""
    if task.kind == splits.kind:
        return
    labels_are = f"the labels of '{recipe.data.name}' are '{splits.kind}'"
    if splits.kind in task.kinds:
        raise ValueError(f"kind is '{task.kind}', but {labels_are}; set task.kind={splits.kind}")
    raise ValueError(
        f"{recipe.task.name} learns labels of the kind {' or '.join(task.kinds)}, but {labels_are}. "
        "Take another task, or data with such labels"
    )


def _label_seed(recipe: Recipe) -> int | None:
    """The first seed where a teacher knows a limited number of labels, else None."""
    teachers = [spec for stage in stages(recipe) for spec in stage.teachers]
    limited = any(spec.data is not None and spec.data.num_labeled is not None for spec in teachers)
    return recipe.seeds[0] if limited else None


def _teacher_tokenizer(recipe: Recipe) -> str | None:
    """That of all teachers, None where it is that of the data."""
    found = {spec.tokenizer: None for stage in stages(recipe) for spec in stage.teachers} or {
        None: None
    }
    if len(found) > 1:
        raise ValueError(
            f"all teachers of a recipe have one tokenizer, these have {', '.join(name or 'that of the data' for name in found)}"
        )
    return next(iter(found))
