"""Asks a recipe's teacher once about every sample and view that training will see, and keeps the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from instil.core import Batch, Objectives, Outputs, Teacher, batch_size
from instil.data.loader import Loader
from instil.data.samples import Samples
from instil.engine import init_distributed, world_size
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.filtered_teachers import check_predictions_by_index
from instil.experiment.scheme_checks import check_teacher_reads_texts
from instil.experiment.stored_teacher import check_recordable, store_fingerprint
from instil.experiment.training_options import autocast_context
from instil.plan.arm_progress import ArmProgress, trainings
from instil.plan.arms import Arm, Arms
from instil.plan.results import measure_costs
from instil.plan.run_folder import RunFolder
from instil.progress import RunProgress
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.sections import Recipe, StoreConfig
from instil.store.codecs import encode_outputs, encoded_roles
from instil.store.writer import StoreWriter
from instil.tasks.bases.task import to_device


@on_device_of_recipe
def record_outputs(recipe: Recipe, console: Console) -> Path:
    """Record the answers of the recipe's teacher, trained first where it must be, into the folder that ``store`` names; go on where it stopped.

    Raises ValueError for a recipe without ``store`` or teacher, or whose answers cannot be recorded.
    """
    init_distributed()
    if recipe.store is None:
        raise RecipeError("store: say where the answers are to be kept: store.path=answers")
    if "://" in recipe.store.path:
        raise RecipeError(
            f"store.path: answers are recorded into a folder of this machine, not to {recipe.store.path}; copy the folder there"
        )
    if world_size() > 1:
        raise ValueError("answers are recorded by one process; start it without a launcher")
    if not recipe.teachers:
        raise RecipeError("teacher: there is none whose answers could be recorded")
    check_recordable(recipe)
    check_teacher_reads_texts(recipe)
    check_predictions_by_index(recipe)
    live = Experiment.from_recipe(recipe.model_copy(update={"store": None}))
    *_, (_, scheme, _) = dry_run(live)
    roles = scheme.objectives.reads("teacher") - {"input"}
    _check_codec(scheme.objectives, recipe.store)
    with error_context("store.path"):
        writer = StoreWriter(Path(recipe.store.path), store_fingerprint(live, recipe.store))
    with RunProgress(console, trainings(live).teachers) as progress:
        shown = ArmProgress(progress)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "checkpoint").mkdir()
            run_folder = RunFolder(Path(folder))
            run_folder.on_log = shown.observe
            teacher = Arms(live, run_folder, shown).teacher()
        assert teacher is not None
        sections = _sections(live, bool(teacher.test))
        progress.add_jobs(len(sections))
        for name, samples, views in sections:
            progress.start(f"recording {name}")
            asked = _Asked(
                live,
                teacher,
                recipe.store,
                sorted(
                    roles if name == "train" else live.task.teacher_eval_roles or live.task.roles
                ),
                name == "train",
            )
            for done in writer.record(name, samples.index, views, asked.batches(samples), asked):
                progress.update(done, len(samples) * views)
    writer.finish(_facts(live, teacher))
    return writer.folder


def _check_codec(objectives: Objectives, store: StoreConfig) -> None:
    """RecipeError where an objective could not read what the codec keeps."""
    for name, objective in objectives.named():
        try:
            objective.resolve(
                objective.reads["student"], encoded_roles(objective.reads["teacher"], store.codec)
            )
        except ValueError as error:
            raise RecipeError(
                f"store.codec: '{store.codec}' does not keep what objectives.{name} reads: {error}"
            ) from error


def _sections(experiment: Experiment, scored: bool) -> list[tuple[str, Samples, int]]:
    """What is asked: the training samples in every view; for the scores, each once as it is."""
    augment, splits = experiment.recipe.data.augment, experiment.splits
    if (augment.crop or augment.flip) and augment.views is None:
        raise RecipeError(
            "data.augment.views: new views in every epoch cannot be recorded; say how many there are, such as data.augment.views=4"
        )
    plain = [("plain", splits.train, 1)] if "pseudo_labels" in experiment.recipe.baselines else []
    judged = (
        [*plain, ("validation", splits.validation, 1), ("test", splits.test, 1)] if scored else []
    )
    return [("train", splits.train, augment.views or 1), *judged]


class _Asked:
    """The teacher's answers as they are kept.

    Every batch has the size that training has, so that each answer is the live teacher's to the last bit.
    """

    def __init__(
        self,
        experiment: Experiment,
        teacher: Arm,
        store: StoreConfig,
        roles: list[str],
        trained_on: bool,
    ):
        assert isinstance(teacher.net, Teacher)
        self.experiment, self.teacher, self.store, self.roles, self.trained_on = (
            experiment,
            teacher.net,
            store,
            roles,
            trained_on,
        )
        self.size = -(-experiment.recipe.data.batch_size // experiment.recipe.train.accumulate)

    def batches(self, samples: Samples) -> Any:
        """Of a view, the batches from one sample to another."""
        changed = self.experiment.augmentation_for(samples) if self.trained_on else None

        def of(view: int, start: int, end: int) -> Iterable[Batch]:
            part = samples.subset(torch.arange(start, end))
            loader = Loader(
                part,
                self.size,
                shuffle=False,
                workers=self.experiment.recipe.data.workers,
                augment=changed,
            )
            loader.set_epoch(view)
            return loader

        return of

    def __call__(self, batch: Batch) -> Outputs:
        rows = torch.arange(max(self.size, batch_size(batch))) % batch_size(batch)
        whole = {
            key: value[rows]
            if isinstance(value, Tensor) and value.ndim and len(value) == batch_size(batch)
            else value
            for key, value in batch.items()
        }
        with autocast_context(self.experiment.recipe.train):
            outputs = self.teacher(to_device(whole, init_distributed()))
        codec = self.store.codec if self.trained_on else "exact"
        with error_context("store.size"):
            return encode_outputs(
                {role: outputs[role] for role in self.roles}, whole, codec, self.store.size
            )


def _facts(experiment: Experiment, teacher: Arm) -> dict[str, Any]:
    """The teacher's scores, and what it costs."""
    return {
        "test": teacher.test,
        "validation": teacher.validation,
        "details": teacher.details,
        "seconds": teacher.seconds,
        "cost": measure_costs(experiment, teacher, {"distilled": []}).get("teacher"),
    }
