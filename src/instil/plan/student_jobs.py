"""Jobs that train the students of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from instil.experiment.experiment import Experiment
from instil.plan.fingerprints import baseline_parts, evaluation_parts, recipe_parts
from instil.plan.job import Job
from instil.recipe import earlier_stage, fingerprint, origin_stage
from instil.recipe.sections import Recipe


def student_jobs(
    experiment: Experiment, input_hashes: dict[str, str], before: Sequence[Job]
) -> Iterator[Job]:
    """Yield for every seed the baselines, and the stages of the distilled student.

    Args:
        experiment: data and task of the recipe.
        input_hashes: fingerprints of data, code and weights, by their description.
        before: trainings and evaluation of teachers. Metrics compare every student with the
            teacher, so that all of them are inputs.
    """
    # The labels of all seeds are those of the first one if a teacher has few labels.
    common = [input_hashes, experiment.label_seed, *evaluation_parts(experiment)]
    baselines = {name: baseline_parts(experiment, name) for name in experiment.recipe.baselines}
    names = tuple(job.name for job in before)
    for seed in experiment.recipe.seeds:
        for arm, parts in baselines.items():
            hashed = _fingerprint(before, common, parts, arm, seed)
            yield Job(f"student/{arm}/seed-{seed}", "baseline", names, hashed, arm=arm, seed=seed)
        yield from _stage_jobs(experiment, common, before, seed)


def _stage_jobs(
    experiment: Experiment, common: list[Any], before: Sequence[Job], seed: int
) -> Iterator[Job]:
    """Yield the stages of the distilled student of one seed."""
    parts = recipe_parts(experiment, "stage")
    recipes = [stage.recipe for stage in experiment.stages]
    last = len(recipes) - 1
    jobs: list[Job] = []
    for index in range(len(recipes)):
        # The result of the last stage has the records of all stages.
        earlier = range(last) if index == last else _earlier_stages(recipes, index)
        inputs = [*before, *(jobs[stage_index] for stage_index in earlier)]
        # Both numbers are part of the random seed of a stage.
        position = [index, origin_stage(recipes)]
        job = Job(
            f"student/distilled/seed-{seed}" + f"/stage-{index}" * bool(last),
            "stage",
            tuple(job.name for job in inputs),
            _fingerprint(inputs, common, parts[index], position, seed),
            arm="distilled",
            seed=seed,
            stage_index=index,
            is_last=index == last,
        )
        jobs.append(job)
        yield job


def _earlier_stages(recipes: Sequence[Recipe], index: int) -> list[int]:
    """Return the indices of the stages whose students a stage reads."""
    recipe = recipes[index]
    models = [spec.model for spec in (recipe.student, *recipe.teachers) if spec.earlier]
    return sorted({earlier_stage(recipes, index, model) for model in models})


def _fingerprint(inputs: Sequence[Job], *parts: Any) -> str:
    return fingerprint([job.fingerprint for job in inputs], list(parts))
