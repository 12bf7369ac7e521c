"""Plan of a recipe: its jobs in the order in which one process executes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instil.experiment.experiment import Experiment
from instil.experiment.stored_teacher import store_fingerprint
from instil.experiment.trained_teachers import cache_path, cached_file
from instil.plan import finished_stages, finished_students, teacher_record
from instil.plan.fingerprints import input_fingerprints, recipe_parts
from instil.plan.job import Job, JobKind
from instil.plan.run_folder import RunFolder
from instil.plan.student_jobs import student_jobs
from instil.recipe import fingerprint
from instil.recipe.sections import StoreConfig


@dataclass(frozen=True)
class Plan:
    """All jobs of a recipe.

    Attributes:
        experiment: data and task of the recipe.
        jobs: jobs in an order in which every job follows its inputs.
    """

    experiment: Experiment
    jobs: tuple[Job, ...]

    @classmethod
    def compile(cls, experiment: Experiment) -> Plan:
        """Compile the plan of a recipe; trains nothing.

        Args:
            experiment: data and task of the recipe.
        """
        inputs = input_fingerprints(experiment)
        exported_arm = experiment.recipe.exported_arm
        teachers = tuple(_teacher_jobs(experiment))
        recordings = tuple(_recordings(experiment))
        scores = _scores_jobs(experiment, inputs, (*teachers, *recordings))
        students = tuple(student_jobs(experiment, inputs, (*teachers, *scores)))
        finished = [job for job in students if job.is_last]
        export = _following("export", [job for job in finished if job.arm == exported_arm])
        report = _following("report", [*scores, *finished, export])
        return cls(experiment, (*teachers, *recordings, *scores, *students, export, report))

    @classmethod
    def compile_recording(cls, experiment: Experiment, store: StoreConfig) -> Plan:
        """Compile the plan of a recording: teachers, their evaluation and the recording.

        Args:
            experiment: data and task of the recipe, with the teachers in place of the store.
            store: section ``store`` of the recipe.
        """
        teachers = tuple(_teacher_jobs(experiment))
        scores = _scores_jobs(experiment, input_fingerprints(experiment), teachers)
        record = _record_job(experiment, store, (*teachers, *scores))
        return cls(experiment, (*teachers, *scores, record))

    @property
    def teachers(self) -> tuple[Job, ...]:
        """Trainings of teachers."""
        return tuple(job for job in self.jobs if job.kind == "teacher")

    @property
    def students(self) -> tuple[Job, ...]:
        """Trainings of students: of each seed the baselines and stages of the distilled one."""
        return tuple(job for job in self.jobs if job.trains_student)

    @property
    def trainings(self) -> tuple[Job, ...]:
        """All trainings."""
        return (*self.teachers, *self.students)

    def is_done(self, job: Job, folder: Path | None) -> bool:
        """Whether the result of a training or evaluation is on the disk.

        Args:
            job: the job.
            folder: run folder, where students are; None for a run that has not started.
        """
        if job.kind == "teacher":
            return self.teacher_path(job).exists()
        if job.kind == "record":
            # A run starts only if its recording is complete.
            return self.experiment.recipe.store is not None
        if folder is None:
            return False
        run_folder = RunFolder(folder)
        if job.kind == "evaluate":
            return teacher_record.is_written(run_folder)
        if not job.trains_student:
            return False
        if finished_students.is_written(run_folder, job.arm, job.seed):
            return True
        stage_path = finished_stages.weights_path(run_folder, job.seed, job.stage_index)
        return not job.is_last and stage_path.exists()

    def pending(self, folder: Path | None) -> list[Job]:
        """Return the trainings and evaluations whose results are not on the disk."""
        jobs = (job for job in self.jobs if job.is_executable)
        return [job for job in jobs if not self.is_done(job, folder)]

    def teacher_path(self, job: Job) -> Path:
        """Return the file of a trained teacher, which all runs share."""
        return cached_file(job.fingerprint)


def _teacher_jobs(experiment: Experiment) -> Iterator[Job]:
    """Yield the teachers that need a training; one that several stages share stands once."""
    if experiment.recipe.store is not None:
        return
    paths: dict[Path, tuple[int, int]] = {}
    for stage_index, stage in enumerate(experiment.stages):
        for index, spec in enumerate(stage.recipe.teachers):
            if not (spec.earlier or spec.ready):
                paths.setdefault(cache_path(stage, spec, index), (stage_index, index))
    for job_index, (path, (stage_index, index)) in enumerate(paths.items()):
        name = "teacher" if len(paths) == 1 else f"teacher/{job_index}"
        yield Job(name, "teacher", (), path.stem, stage_index=stage_index, teacher_index=index)


def _scores_jobs(
    experiment: Experiment, input_hashes: dict[str, str], teachers: tuple[Job, ...]
) -> tuple[Job, ...]:
    """Return the evaluation of the teacher, if the recipe has a teacher of its own."""
    recipe = experiment.recipe
    has_teacher = any(
        not all(spec.earlier for spec in stage.recipe.teachers) for stage in experiment.stages
    )
    if recipe.store is None and not has_teacher:
        return ()
    parts = recipe_parts(experiment, "evaluate")
    hashed = fingerprint(parts, input_hashes, [job.fingerprint for job in teachers])
    inputs = tuple(job.name for job in teachers)
    return (Job("evaluate/teacher", "evaluate", inputs, hashed),)


def _recordings(experiment: Experiment) -> Iterator[Job]:
    """Yield the recording that the run reads in place of a teacher, if there is one."""
    if experiment.recipe.store is not None:
        yield _record_job(experiment, experiment.recipe.store, ())


def _record_job(experiment: Experiment, store: StoreConfig, inputs: tuple[Job, ...]) -> Job:
    hashed = fingerprint(store_fingerprint(experiment, store))
    return Job("record", "record", tuple(job.name for job in inputs), hashed)


def _following(kind: JobKind, inputs: list[Job]) -> Job:
    """Return a job that depends on nothing but its inputs."""
    hashed = fingerprint(kind, [job.fingerprint for job in inputs])
    names = tuple(job.name for job in inputs)
    return Job(kind, kind, names, hashed)
