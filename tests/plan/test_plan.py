"""The plan of a recipe: its jobs, their inputs and their fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest

from instil.experiment.experiment import Experiment
from instil.plan.plan import Plan
from tests.experiment.small import recipe, run_of


def plan_of(*changes: str, **sections: object) -> Plan:
    return Plan.compile(Experiment.from_recipe(recipe(*changes, **sections)))


def fingerprints(plan: Plan) -> dict[str, str]:
    return {job.name: job.fingerprint for job in plan.jobs}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def test_jobs_are_in_the_order_of_their_inputs() -> None:
    plan = plan_of("seeds=[3]", "baselines=[alone, pseudo_labels]")
    assert [job.name for job in plan.jobs] == [
        "teacher",
        "evaluate/teacher",
        "student/alone/seed-3",
        "student/pseudo_labels/seed-3",
        "student/distilled/seed-3",
        "export",
        "report",
    ]
    finished: set[str] = set()
    for job in plan.jobs:
        assert finished >= set(job.inputs)
        finished.add(job.name)


def test_a_plan_is_the_same_each_time() -> None:
    assert fingerprints(plan_of()) == fingerprints(plan_of())


def test_a_change_of_the_method_leaves_teacher_and_baselines() -> None:
    before = fingerprints(plan_of("seeds=[0]", "baselines=[alone]"))
    after = fingerprints(plan_of("seeds=[0]", "baselines=[alone]", "objectives.kd.temperature=3"))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"student/distilled/seed-0", "export", "report"}


@pytest.mark.parametrize("change", ["data.batch_size=50", "teacher_train.epochs=3"])
def test_a_change_of_the_teacher_changes_all_that_follows(change: str) -> None:
    before = fingerprints(plan_of("seeds=[0]", "baselines=[alone]"))
    after = fingerprints(plan_of("seeds=[0]", "baselines=[alone]", change))
    assert not set(before.values()) & set(after.values())


def test_finished_trainings_are_recognized(tmp_path: Path) -> None:
    changes = ("train.epochs=1", "seeds=[0]", "baselines=[alone]")
    plan = plan_of(*changes)
    assert not any(plan.is_done(job, tmp_path / "run") for job in plan.trainings)
    run_of(recipe(*changes), tmp_path / "run")
    assert all(plan.is_done(job, tmp_path / "run") for job in plan.trainings)
    assert [plan.is_done(job, None) for job in plan.trainings] == [True, False, False]


STAGES = [
    {"name": "hint", "student": {"model": "cnn", "options": {"width": 2}}},
    {"name": "peer", "objectives": {"cross_entropy": {}}},
    {"teacher": "stage:hint", "student": "previous"},
]


def test_each_stage_is_a_job_that_reads_the_stages_it_names() -> None:
    plan = plan_of("seeds=[0]", "baselines=[]", stages=STAGES)
    jobs = {job.name: job for job in plan.students}
    prefix = "student/distilled/seed-0/stage-"
    common = ("teacher", "evaluate/teacher")
    assert {name: job.inputs for name, job in jobs.items()} == {
        f"{prefix}0": common,
        f"{prefix}1": common,
        f"{prefix}2": (*common, f"{prefix}0", f"{prefix}1"),
    }
    export = next(job for job in plan.jobs if job.kind == "export")
    assert export.inputs == (f"{prefix}2",)


def test_a_change_of_a_stage_leaves_the_stages_before_it() -> None:
    before = fingerprints(plan_of("seeds=[0]", "baselines=[]", stages=STAGES))
    changed = [*STAGES[:2], STAGES[2] | {"objectives": {"cross_entropy": {}, "kd": {}}}]
    after = fingerprints(plan_of("seeds=[0]", "baselines=[]", stages=changed))
    assert {name for name in before if before[name] != after[name]} == {
        "student/distilled/seed-0/stage-2",
        "export",
        "report",
    }


def test_a_change_of_the_label_loss_changes_the_baselines_that_use_it() -> None:
    changes = ("seeds=[0]", "baselines=[alone]")
    before = fingerprints(plan_of(*changes))
    after = fingerprints(plan_of(*changes, "objectives.cross_entropy.class_weights=balanced"))
    assert before["student/alone/seed-0"] != after["student/alone/seed-0"]


def test_a_recording_is_the_last_job_of_its_plan_and_the_first_of_a_run(tmp_path: Path) -> None:
    one = recipe("seeds=[0]", "baselines=[]", f"store.path={tmp_path / 'store'}")
    live = Experiment.from_recipe(one.model_copy(update={"store": None}))
    assert one.store is not None
    recording = Plan.compile_recording(live, one.store)
    assert {job.name: job.inputs for job in recording.jobs} == {
        "teacher": (),
        "evaluate/teacher": ("teacher",),
        "record": ("teacher", "evaluate/teacher"),
    }
    run = Plan.compile(Experiment.from_recipe(one))
    assert [job.name for job in run.jobs][:2] == ["record", "evaluate/teacher"]
    assert run.jobs[0].fingerprint == recording.jobs[-1].fingerprint
    assert run.is_done(run.jobs[0], None)
