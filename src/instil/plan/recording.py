"""Recording of teacher outputs for all training samples and views in a store."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from instil.core import Teacher
from instil.data.streams import Stream
from instil.engine import clear_rank_errors, init_distributed, rank, world_size
from instil.engine.processes import broadcast_object, gather_objects
from instil.experiment.device import on_device_of_recipe
from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.sample_digest import sample_digest
from instil.experiment.sources import set_row_width
from instil.experiment.stored_teacher import (
    evaluated_samples,
    store_fingerprint,
)
from instil.files.atomic import check_writable
from instil.files.cache import cache_folder
from instil.plan.plan import Plan
from instil.plan.recording_checks import check_codec, recorded_section
from instil.plan.results import measure_costs
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.plan.section_recorder import SectionPlan, SectionRecorder
from instil.plan.trained_model import TrainedModel
from instil.plan.training_progress import TrainingProgress, trainings
from instil.progress import RunProgress
from instil.recipe.errors import RecipeError, error_context
from instil.recipe.sections import Recipe, StoreConfig, TeacherConfig
from instil.store.codecs import encoded_roles
from instil.store.group import Group
from instil.store.writer import StoreWriter


@on_device_of_recipe
def record_outputs(recipe: Recipe, console: Console, source: Path | None = None) -> Path:
    """Record the outputs of a recipe's teacher in the folder ``store.path``.

    The teacher is trained first if it is not trained yet. A recording that was stopped is
    continued; shards that are complete are not recorded again. Several processes of ``torchrun``
    divide the batches; the store is that of one process.

    Args:
        recipe: recipe with the section ``store``.
        console: console for the progress.
        source: file of predictions that replaces the teacher of the recipe.

    Returns:
        The folder of the store.

    Raises:
        RecipeError: if the recipe has no ``store`` or no teacher, or if the outputs of this
            teacher cannot be recorded.
        RankError: if another process of ``torchrun`` ended, or did not respond in time.
    """
    init_distributed()
    if rank() > 0:
        console = Console(quiet=True)
    with clear_rank_errors("Continue with the same command"):
        return _record_outputs(recipe, console, source)


def _record_outputs(recipe: Recipe, console: Console, source: Path | None) -> Path:
    if source is not None:
        recipe = with_predictions(recipe, source)
    store = recorded_section(recipe)
    live = Experiment.from_recipe(recipe.model_copy(update={"store": None}))
    set_row_width(live.splits, recipe)
    if isinstance(live.splits.train, Stream):
        raise RecipeError(
            "data: outputs are recorded for every training sample, and the training data are a "
            "stream. Expected data in memory. Use a source that is not streamed."
        )
    *_, (_, scheme, _) = dry_run(live)
    # Read before the codec is checked: the check changes what the objectives read.
    roles = scheme.teacher_roles()
    check_codec(scheme.objectives, store)
    with error_context("store.path"):
        group = Group(rank(), world_size(), gather_objects)
        writer = StoreWriter(Path(store.path), store_fingerprint(live, store), group)
        # Now, and not with the first shard: the teacher may have to be trained before.
        check_writable(writer.folder)
    sections = [_train_section(live, store, roles)]
    plan = Plan.compile_recording(live, store)
    with (
        RunProgress(console, trainings(plan).teachers) as progress,
        _training_folder() as folder,
    ):
        runner = _runner(live, folder, progress)
        for job in plan.jobs:
            if job.kind == "record":
                _record(writer, runner, sections, progress)
            else:
                runner.execute(job)
    return writer.folder


def with_predictions(recipe: Recipe, file: Path) -> Recipe:
    """Return a recipe whose teacher is a file of predictions.

    Args:
        recipe: any recipe.
        file: the file, relative to the working directory.
    """
    path = os.path.relpath(file.resolve(), Path(recipe.folder).resolve())
    teacher = TeacherConfig(model=f"predictions:{Path(path).as_posix()}")
    return recipe.model_copy(update={"teacher": teacher, "ensemble": None})


@contextlib.contextmanager
def _training_folder() -> Iterator[Path]:
    """Create a temporary folder for the training of teachers, the same for all processes."""
    # On several machines only the cache is on a file system that they share.
    parent = cache_folder() if world_size() > 1 else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = ""
        if rank() == 0:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=parent))
            (Path(folder) / "checkpoint").mkdir()
        yield Path(broadcast_object(folder))


def _runner(experiment: Experiment, folder: Path, progress: RunProgress) -> Runner:
    """Build a runner that trains teachers into a folder."""
    training_progress = TrainingProgress(progress)
    run_folder = RunFolder(folder)
    run_folder.on_log = training_progress.observe
    return Runner(experiment, run_folder, training_progress)


def _record(
    writer: StoreWriter, runner: Runner, sections: list[SectionPlan], progress: RunProgress
) -> None:
    """Record all sections, and the scores of the teacher."""
    experiment, teacher = runner.experiment, runner.teacher()
    assert teacher is not None
    # Nothing is compared with a teacher that has no metrics on this data.
    if teacher.test:
        sections = [*sections, *_evaluation_sections(experiment)]
    progress.add_jobs(len(sections))
    for section in sections:
        progress.start(f"recording {section.name}")
        _record_section(writer, experiment, teacher, section, progress)
    # Of several processes the first one measures the latency.
    writer.finish(writer.group.first(lambda: _teacher_facts(experiment, teacher)))


def _train_section(experiment: Experiment, store: StoreConfig, roles: set[str]) -> SectionPlan:
    """Training samples in all views, with the outputs that the objectives read."""
    augment = experiment.recipe.data.augment
    if (augment.crop or augment.flip) and augment.views is None:
        raise RecipeError(
            "data.augment.views: new views in every epoch cannot be recorded. Expected the number "
            "of views of each sample, got null. Set it, such as data.augment.views=4"
        )
    return SectionPlan(
        "train",
        experiment.splits.train,
        augment.views or 1,
        tuple(sorted(roles)),
        store.codec,
        store.size,
        is_augmented=True,
    )


def _evaluation_sections(experiment: Experiment) -> list[SectionPlan]:
    """Samples without augmentation, with the outputs that the task evaluates."""
    splits = experiment.splits
    samples = dict(evaluated_samples(experiment))
    if "pseudo_labels" in experiment.recipe.baselines:
        samples = {"plain": splits.train, **samples}
    roles = tuple(sorted(experiment.task.teacher_eval_roles or experiment.task.roles))
    return [
        SectionPlan(
            name,
            part,
            1,
            roles,
            codec="exact",
            codec_size=0,
            is_augmented=False,
            digest=None if part is splits.train else sample_digest(part),
        )
        for name, part in samples.items()
    ]


def _record_section(
    writer: StoreWriter,
    experiment: Experiment,
    teacher: TrainedModel,
    section: SectionPlan,
    progress: RunProgress,
) -> None:
    assert isinstance(teacher.net, Teacher)
    recorder = SectionRecorder(experiment, teacher.net, section)
    recorded = writer.record(
        section.name,
        section.samples.index,
        section.num_views,
        recorder.batches,
        recorder.encoded_outputs,
        section.digest,
        encoded_roles(section.roles, section.codec),
        recorder.counted_tokens,
        recorder.batch_size,
    )
    for num_recorded in recorded:
        progress.update(num_recorded, section.num_outputs)


def _teacher_facts(experiment: Experiment, teacher: TrainedModel) -> dict[str, Any]:
    """Metrics, training time and costs of the teacher, for the manifest of the store."""
    return {
        "test": teacher.test,
        "validation": teacher.validation,
        "details": teacher.details,
        "seconds": teacher.seconds,
        "cost": measure_costs(experiment, teacher, {}).get("teacher"),
    }
