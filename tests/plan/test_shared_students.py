"""Students that several runs share through the cache."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from instil.experiment.experiment import Experiment
from instil.plan import finished_stages, finished_students, fitting, records, shared_students
from instil.plan.overview import overview
from instil.plan.plan import Plan
from instil.plan.run import run
from instil.plan.run_folder import RunFolder
from instil.plan.shared_students import SharedStudents
from instil.recipe.sections import Recipe
from tests.experiment.small import lines, numbers, recipe, result

SHORT = ("train.epochs=1", "seeds=[0]")
ALONE = (*SHORT, "baselines=[alone]")


@pytest.fixture
def fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the trainings that are executed, with a cache for this test."""
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INSTIL_CACHE_GB", "1")
    names: list[str] = []
    original = fitting.fit

    def fit(*inputs: Any, checkpoint: Path, **options: Any) -> Any:
        names.append(checkpoint.stem)
        return original(*inputs, checkpoint=checkpoint, **options)

    monkeypatch.setattr(fitting, "fit", fit)
    return names


def run_in(folder: Path, one: Recipe, fresh: bool = False) -> dict[str, Any]:
    run(one, folder, None, Console(quiet=True), fresh=fresh)
    return result(folder)


def entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "students").iterdir())


def test_one_more_baseline_trains_nothing_else(fits: list[str], tmp_path: Path) -> None:
    first = run_in(tmp_path / "first", recipe(*ALONE))
    assert fits == ["teacher-stage0", "alone-0-stage0", "distilled-0-stage0"]
    fits.clear()
    more = recipe(*SHORT, "baselines=[alone, label_smoothing]")
    second = run_in(tmp_path / "second", more)
    assert fits == ["label_smoothing-0-stage0"]
    origin = str(tmp_path / "first")
    assert first["reused"] == {}
    assert second["reused"] == {"alone": {"0": origin}, "distilled": {"0": origin}}
    assert numbers(second, ("teacher", "alone", "distilled"))["gain"] == first["gain"]
    for name in ("alone-0", "distilled-0"):
        first_file, second_file = (
            tmp_path / run_name / "checkpoint" / f"{name}.safetensors"
            for run_name in ("first", "second")
        )
        assert first_file.read_bytes() == second_file.read_bytes()
    assert [line for line in lines(tmp_path / "second") if line["arm"] == "alone"] == [
        line for line in lines(tmp_path / "first") if line["arm"] == "alone"
    ]


def test_fresh_trains_again_and_replaces_the_entry(fits: list[str], tmp_path: Path) -> None:
    run_in(tmp_path / "first", recipe(*ALONE))
    fits.clear()
    assert run_in(tmp_path / "second", recipe(*ALONE), fresh=True)["reused"] == {}
    assert fits == ["alone-0-stage0", "distilled-0-stage0"]
    third = run_in(tmp_path / "third", recipe(*ALONE))
    assert third["reused"]["alone"] == {"0": str(tmp_path / "second")}


def test_a_changed_method_is_trained(fits: list[str], tmp_path: Path) -> None:
    run_in(tmp_path / "first", recipe(*ALONE))
    fits.clear()
    run_in(tmp_path / "second", recipe(*ALONE, "objectives.kd.temperature=3"))
    assert fits == ["distilled-0-stage0"]


def test_stages_before_a_change_are_reused(fits: list[str], tmp_path: Path) -> None:
    stages: list[dict[str, Any]] = [{"name": "first"}, {"student": "previous"}]
    changes = (*SHORT, "baselines=[]")
    run_in(tmp_path / "first", recipe(*changes, stages=stages))
    assert fits == ["teacher-stage0", "distilled-0-stage0", "distilled-0-stage1"]
    fits.clear()
    objectives = {"cross_entropy": {}, "kd": {"temperature": 4}}
    changed = [stages[0], stages[1] | {"objectives": objectives}]
    run_in(tmp_path / "second", recipe(*changes, stages=changed))
    assert fits == ["distilled-0-stage1"]
    stages_logged = [line["stage"] for line in lines(tmp_path / "second") if line["seed"] == 0]
    assert stages_logged == [0, 1]


@pytest.mark.parametrize("name", ["weights.safetensors", "record.json"])
def test_a_damaged_entry_is_deleted_and_trained(
    name: str, fits: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_in(tmp_path / "first", recipe(*SHORT, "baselines=[]"))
    (entry,) = entries(tmp_path)
    content = bytearray((entry / name).read_bytes())
    content[-5] ^= 1
    (entry / name).write_bytes(content)
    fits.clear()
    run_in(tmp_path / "second", recipe(*SHORT, "baselines=[]"))
    assert fits == ["distilled-0-stage0"]
    assert "trained again now" in caplog.text
    assert run_in(tmp_path / "third", recipe(*SHORT, "baselines=[]"))["reused"]


def test_further_students_come_with_theirs(fits: list[str], tmp_path: Path) -> None:
    scheme = {"type": "several_students", "others": [{"model": "mlp", "options": {"width": 3}}]}
    one = recipe(*SHORT, "baselines=[]", scheme=scheme)
    run_in(tmp_path / "first", one)
    run_in(tmp_path / "second", one)
    assert fits == ["teacher-stage0", "distilled-0-stage0"]
    first, second = (tmp_path / name / "other0-0.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_the_plan_lists_what_is_cached(fits: list[str], tmp_path: Path) -> None:
    run_in(tmp_path / "first", recipe(*ALONE))
    jobs = overview(recipe(*SHORT, "baselines=[alone, label_smoothing]"))["jobs"]
    assert {job["name"] for job in jobs if job["cached"]} == {
        "teacher",
        "student/alone/seed-0",
        "student/distilled/seed-0",
    }
    assert [job["name"] for job in jobs if "seconds" in job] == ["student/label_smoothing/seed-0"]


def test_the_first_rank_alone_reads_and_writes_the_cache(
    fits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = recipe(*SHORT, "baselines=[]")
    run_in(tmp_path / "first", one)
    plan = Plan.compile(Experiment.from_recipe(one))

    def fail(value: Any) -> Any:
        raise AssertionError("the other ranks do not take part")

    for module in (records, finished_students, finished_stages):
        monkeypatch.setattr(module, "broadcast_object", fail)
    (tmp_path / "second").mkdir()
    shared = SharedStudents(plan, RunFolder(tmp_path / "second"))
    assert shared.fetch() == list(plan.students)
    shared.delete()
    shared.publish(plan.students[0])
    assert shared.is_cached(plan.students[0])


def test_several_processes_publish_at_once(fits: list[str], tmp_path: Path) -> None:
    one = recipe(*SHORT, "baselines=[]")
    run_in(tmp_path / "first", one)
    plan = Plan.compile(Experiment.from_recipe(one))
    shared = SharedStudents(plan, RunFolder(tmp_path / "first"))
    shared.delete()
    assert entries(tmp_path) == []
    threads = [threading.Thread(target=shared.publish, args=plan.students) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entries(tmp_path) == [shared.entry(plan.students[0])]


def test_the_oldest_entries_make_room(
    fits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in(tmp_path / "first", recipe(*ALONE))
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in entries(tmp_path)]
    monkeypatch.setenv("INSTIL_CACHE_GB", str(1.5 * max(sizes) / 1e9))
    run_in(tmp_path / "second", recipe(*ALONE, "objectives.kd.temperature=3"))
    plan = Plan.compile(Experiment.from_recipe(recipe(*ALONE, "objectives.kd.temperature=3")))
    shared = SharedStudents(plan, RunFolder(tmp_path / "second"))
    assert entries(tmp_path) == [shared.entry(plan.students[-1])]


def test_entries_that_another_process_moves_are_left_alone(
    fits: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cache" / "students"
    folder.mkdir(parents=True)
    # A link to nothing is listed, but has no status, as an entry that is renamed in between.
    (folder / ".part-moved").symlink_to(folder / "missing")
    run_in(tmp_path / "first", recipe(*ALONE))
    assert "could not be written" not in caplog.text
    assert len(entries(tmp_path)) == 3, "two students and the link"


def test_a_size_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE_GB", "much")
    with pytest.raises(ValueError, match=r"^INSTIL_CACHE_GB: expected .* got 'much'"):
        shared_students._limit_bytes()


def test_another_number_of_threads_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.compile(Experiment.from_recipe(recipe(*ALONE)))
    job = plan.students[0]
    one = SharedStudents(plan, RunFolder(Path())).entry(job)
    monkeypatch.setattr("torch.get_num_threads", lambda: 7)
    assert SharedStudents(plan, RunFolder(Path())).entry(job) != one
