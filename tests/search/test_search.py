"""Searches over methods and options of a tiny recipe."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from instil.experiment.dry_run import dry_run
from instil.experiment.experiment import Experiment
from instil.experiment.task_builder import build_task
from instil.experiment.trained_teachers import load_if_trained
from instil.files.json_files import write_json
from instil.files.locks import FileLock
from instil.plan.evaluation import Evaluator
from instil.recipe import RecipeError, build, load
from instil.search import study as study_module
from instil.search.arms import Arm, base_data, reference_arms
from instil.search.candidates import require_cost
from instil.search.execution import execute
from instil.search.outcome import best_recipe, count_steps, time_notes
from instil.search.pruning import is_behind
from instil.search.search import Settings, start
from instil.search.state import State, read_state
from instil.search.study import Study
from instil.search.trainer import Trainer
from instil.search.trials import Trial, make_trial, result_file
from tests.search.recipes import continue_search, recipe, search, silent, without_times

COSTS = {"kd": 0.1, "crd": 0.3}
"""Seconds of a step."""
REFERENCES = ["alone", "label_smoothing", "pseudo_labels", "kd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished search over methods and options."""
    path = tmp_path_factory.mktemp("searches") / "first"
    search(path, over=("methods", "options"), num_trials=3)
    return path


def outcome(folder: Path) -> dict[str, Any]:
    """Content of ``search.json`` without times."""
    content: dict[str, Any] = without_times(json.loads((folder / "search.json").read_text()))
    return content


def test_every_arm_of_a_round_has_the_same_trials_and_steps(folder: Path) -> None:
    result = outcome(folder)
    names = [arm["name"] for arm in result["arms"]]
    assert names == [*REFERENCES, "dist", "dkd"]
    for index, rung in enumerate(result["schedule"]["rungs"]):
        trials = [trial for trial in result["trials"] if trial["round"] == index]
        counts = dict.fromkeys(names, 0)
        for trial in trials:
            assert trial["num_steps"] == rung["num_steps"]
            counts[trial["arm"]] += 1
        assert set(REFERENCES) <= {name for name, count in counts.items() if count}
        assert {count for count in counts.values() if count} == {rung["num_trials"]}
    first = [trial for trial in result["trials"] if trial["round"] == 0]
    defaults = {arm["name"]: arm["dimensions"] for arm in result["arms"]}
    for trial in first:
        assert trial["params"] == {one["path"]: one["default"] for one in defaults[trial["arm"]]}


def test_trials_are_evaluated_during_their_training(folder: Path) -> None:
    for trial in outcome(folder)["trials"]:
        last_step, score = trial["curve"][-1]
        assert score == trial["score"]
        if trial["status"] == "complete":
            assert last_step == trial["num_steps"]
            assert len(trial["curve"]) > 1 or last_step == 1
        else:
            assert trial["num_steps"] // 2 <= last_step < trial["num_steps"]


def test_a_trial_far_behind_its_rivals_stops(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(Experiment.from_recipe(load(folder)), tmp_path)
    state = State.from_json(read_state(folder))
    perfect = [[[step, 1.0] for step in (2, 4, 6, 8, 9)]] * 4
    base = base_data(trainer.experiment.recipe)
    arm = next(arm for arm in state.arms if arm.name == "alone")
    result = trainer.train(make_trial(base, arm, {}, 1, 9, 0, "", perfect))
    assert result["status"] == "stopped"
    assert [step for step, _ in result["curve"]] == [2, 4]


def test_a_method_that_does_not_fit_is_listed_with_its_reason(folder: Path) -> None:
    refused = outcome(folder)["refused"]
    assert list(refused) == ["fitnet"]
    assert "needs features of the student" in refused["fitnet"]


def test_a_slow_method_is_refused() -> None:
    own, slow = (Arm(name, "objective", False, {}, step_seconds=t) for name, t in COSTS.items())
    require_cost(slow, own, 3.0)
    with pytest.raises(ValueError, match=r"3 times as long .* at most 2 times\. Raise --max-cost"):
        require_cost(slow, own, 2.0)


def test_the_winner_has_the_best_validation_score_of_the_new_seeds(folder: Path) -> None:
    result = outcome(folder)
    finalists = {row["name"]: row for row in result["finalists"]}
    means = {name: row["validation"]["mean"] for name, row in finalists.items()}
    assert means[result["winner"]] == max(means.values())
    # The best of several options is a lucky one, so that it is no further seed.
    assert all(len(row["validation"]["values"]) == 2 for row in finalists.values())
    assert result["winner"] in result["best"]
    assert set(REFERENCES) < set(finalists)
    assert result["final_seeds"] == [3, 4]
    assert "alone" in finalists["dkd"]["differences"]


def test_the_same_seed_gives_the_same_search(folder: Path, tmp_path: Path) -> None:
    again = search(tmp_path / "again", over=("methods", "options"), num_trials=3)
    assert without_times(json.loads(json.dumps(again))) == outcome(folder)


def test_a_killed_search_continues_to_the_same_result(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Trainer.train
    finished = []

    def stop_after_ten(self: Trainer, trial: Any) -> dict[str, Any]:
        if len(finished) == 10:
            raise KeyboardInterrupt
        finished.append(trial)
        return train(self, trial)

    path = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train", stop_after_ten)
        with pytest.raises(KeyboardInterrupt):
            search(path, over=("methods", "options"), num_trials=3)
    assert not (path / "search.json").exists()
    assert len(list((path / "trials").iterdir())) == 10
    continue_search(path)
    assert outcome(path) == outcome(folder)


@pytest.mark.slow
def test_three_workers_give_the_same_result(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "three"
    search(path, num_jobs=3, over=("methods", "options"), num_trials=3)
    assert outcome(path) == outcome(folder)
    assert len(list((path / "work").glob("worker-*-2.log"))) >= 1


@pytest.mark.slow
def test_three_processes_share_a_search_that_was_killed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "shared"

    def child(action: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.search.child", action, str(path)]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2])

    killed = child("start")
    while len(list(path.glob("trials/*.json"))) < 5:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not (path / "search.json").exists()
    others = [child("resume") for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    assert outcome(path) == outcome(folder)


def test_a_trial_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    trainer = Trainer(Experiment.from_recipe(recipe()), tmp_path)
    base = base_data(recipe())
    arm = Arm("alone", "baseline", True, {})
    trials = [make_trial(base, arm, {}, 0, 1, seed, "") for seed in range(3)]
    lock = FileLock(tmp_path / f"work/{trials[0].key}.lock")
    assert lock.try_acquire()
    trained = []

    def train(trial: Trial) -> dict[str, Any]:
        trained.append(trial.key)
        write_json(result_file(tmp_path, trial.key), {"key": trial.key})
        if len(trained) == 2:
            # The other process finishes its trial.
            result = {"key": "elsewhere", "status": "finished"}
            write_json(result_file(tmp_path, trials[0].key), result)
        return {"key": trial.key}

    trainer.train = train  # type: ignore[method-assign]
    results = execute(trainer, trials, 1, lambda result: None)
    keys = [trial.key for trial in trials]
    assert [result["key"] for result in results] == ["elsewhere", *keys[1:]]
    assert trained == keys[1:]


@pytest.mark.parametrize("strategy", ["halving", "random"])
def test_the_budget_is_kept(tmp_path: Path, strategy: str) -> None:
    limited = search(
        tmp_path / strategy,
        strategy=strategy,
        max_steps=140,
        num_trials=8,
        num_seeds=1,
        over=("methods", "options"),
    )
    assert 70 < limited["steps"] <= 140
    assert "shrinks" in limited["notes"][0]


def test_an_exhaustive_search_trains_every_arm_to_the_end(tmp_path: Path) -> None:
    search(tmp_path / "all", over=("methods",), strategy="exhaustive", num_seeds=2)
    result = outcome(tmp_path / "all")
    assert {row["name"] for row in result["finalists"]} == {*REFERENCES, "dist", "dkd"}
    full = result["schedule"]["final_steps"]
    assert [trial["num_steps"] for trial in result["trials"]] == [full] * 12
    with pytest.raises(ValueError, match="--strategy exhaustive: every method"):
        Settings(over=("methods", "options"), strategy="exhaustive")


def test_trainings_that_take_longer_than_the_time_are_a_note() -> None:
    def notes(seconds: float | None) -> list[str]:
        state = SimpleNamespace(settings=Settings(max_seconds=seconds), num_jobs=2)
        study: Any = SimpleNamespace(state=state, results=[{"seconds": 90.0}, {"seconds": 30.0}])
        return time_notes(study)

    assert notes(None) == notes(60.0) == []
    (note,) = notes(20.0)
    assert note.startswith("The trainings took 60 s, more than the budget of 20 s.")


def test_references_of_a_student_that_starts_from_the_teacher(tmp_path: Path) -> None:
    own = recipe(student={"model": "teacher", "changes": {"quantized": {"bits": 8}}})
    result = start(own, Settings(candidates=("dkd",), num_seeds=1), tmp_path / "out", silent())
    assert {"alone", "label_smoothing"} <= {row["name"] for row in result["finalists"]}
    assert all(trial["status"] == "complete" for trial in result["trials"])


def test_a_budget_that_cannot_suffice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"budget: too small. Expected at least \d+ optimizer"):
        search(tmp_path / "small", max_steps=20)


def test_the_best_recipe_of_every_arm_can_run(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(Experiment.from_recipe(load(folder)), folder)
    study = Study(State.from_json(read_state(folder)), trainer, 1, lambda result: None)
    study.run_rounds()
    for arm in study.state.arms:
        path = tmp_path / f"{arm.name}.yaml"
        path.write_text(best_recipe(study, arm))
        best = load(path)
        assert best.train.steps == 9
        assert best.seeds == [3, 4]
        list(dry_run(Experiment.from_recipe(best)))
        if arm.kind == "baseline":
            assert arm.name in best.baselines
        assert best.exported_arm == (arm.name if arm.kind == "baseline" else "distilled")


def test_the_recipe_of_a_baseline_has_all_sections_of_the_teacher(tmp_path: Path) -> None:
    """Pseudo-labels of ``best.yaml`` are those of the search: of its store, or its ensemble."""
    members = [{"model": "networks:mlp"}, {"model": "networks:mlp", "options": {"width": 8}}]
    for sections in (
        {"store": {"path": str(tmp_path)}},
        {"teacher": members, "ensemble": {"type": "ensemble", "mean": "probabilities"}},
    ):
        own = recipe(**sections)
        arms = [arm for arm in reference_arms(own, build_task(own)) if arm.kind == "baseline"]
        study: Any = SimpleNamespace(
            trainer=SimpleNamespace(experiment=SimpleNamespace(recipe=own)),
            base=base_data(own),
            best_params=lambda arm: arm.defaults(),
            state=SimpleNamespace(arms=arms),
            final_seeds=[3],
        )
        for arm in arms:
            best = build(yaml.safe_load(best_recipe(study, arm)))
            teacher = (best.teachers, best.store, best.ensemble)
            assert teacher == (own.teachers, own.store, own.ensemble), arm.name


def test_an_untrained_student_is_no_rival(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference arm random_init of representations has a score, and no evaluations."""
    rivals: list[Any] = []

    def trained(trainer: Any, trials: Any, num_jobs: int, on_result: Any) -> list[dict[str, Any]]:
        results = []
        for trial in trials:
            curve = [] if trial.arm == "alone" else [[4, 0.5], [9, 0.6]]
            rivals.append(trial.rivals)
            row = {"arm": trial.arm, "round": trial.round, "params": trial.params, "seconds": 0.0}
            results.append(row | {"status": "complete", "score": 0.6, "curve": curve})
        return results

    monkeypatch.setattr(study_module, "execute", trained)
    trainer = Trainer(Experiment.from_recipe(load(folder)), folder)
    study = Study(State.from_json(read_state(folder)), trainer, 1, lambda result: None)
    study.run_rounds()
    for curves in filter(None, rivals):
        assert all(curves)
        assert not is_behind([[4, 0.5]], curves, True)
    assert any(rivals)


def test_a_student_that_is_not_trained_has_no_steps() -> None:
    arms = [Arm(name, "baseline", True, {}) for name in ("alone", "random_init")]
    trials = [{"arm": arm.name, "status": "complete", "num_steps": 9, "curve": []} for arm in arms]
    assert count_steps(trials, arms) == 9


def test_stages_are_refused(tmp_path: Path) -> None:
    staged = recipe(stages=[{"train": {"steps": 2}}, {"train": {"steps": 2}}])
    with pytest.raises(RecipeError, match="stages: a search trains one stage"):
        start(staged, Settings(), tmp_path / "staged", silent())
    assert not (tmp_path / "staged").exists()


def test_wrong_settings_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="--over: unknown subject 'method'"):
        Settings(over=("method",))
    with pytest.raises(ValueError, match="--budget: several limits"):
        Settings(max_steps=5, max_runs=3)
    with pytest.raises(ValueError, match="--candidates: these are methods"):
        Settings(over=("options",), candidates=("dkd",))
    with pytest.raises(ValueError, match=r"no objective or scheme 'dkdd'.*dkd"):
        search(tmp_path / "unknown", candidates=("dkdd",))
    with pytest.raises(FileExistsError, match="--resume"):
        search(folder)
    with pytest.raises(FileNotFoundError, match="not the folder of a search"):
        continue_search(tmp_path)


def test_the_teacher_is_scored_on_the_test_split(folder: Path) -> None:
    result = outcome(folder)
    experiment = Experiment.from_recipe(load(folder))
    net = load_if_trained(experiment, experiment.recipe.teachers[0], 0)
    assert net is not None
    expected, _ = Evaluator(experiment).evaluate(net, "test")
    teacher = result["teacher"]
    assert teacher["score"] == expected["accuracy"]
    assert teacher["test"].items() >= expected.items()
    assert teacher["parameters"] == sum(weight.numel() for weight in net.parameters())
    assert result["student_parameters"] < teacher["parameters"]
    assert {row["parameters"] for row in result["finalists"]} == {result["student_parameters"]}


def test_a_teacher_without_a_network_has_no_number_of_parameters(tmp_path: Path) -> None:
    fitted = recipe(teacher={"model": "sklearn:LogisticRegression"})
    settings = Settings(candidates=("dkd",), num_seeds=1)
    result = start(fitted, settings, tmp_path / "fitted", silent())
    assert result["teacher"]["parameters"] is None
    assert 0.5 < result["teacher"]["score"] <= 1


def test_a_recipe_without_a_teacher_has_no_score_of_one(tmp_path: Path) -> None:
    alone = recipe(teacher=None, objectives={"cross_entropy": {}})
    result = start(alone, Settings(candidates=(), num_seeds=1), tmp_path / "alone", silent())
    assert result["teacher"] is None
    assert "teacher" not in (tmp_path / "alone/search.html").read_text().partition("<pre")[0]


def test_signals_before_trials_are_part_of_the_outcome(folder: Path) -> None:
    result = outcome(folder)
    assert result["signals"]["teacher_score"] > 0.5
    assert result["signals"]["labels_per_class"] == 10
    for arm in result["arms"]:
        if arm["kind"] == "baseline":
            assert arm["signals"] is None
        else:
            assert arm["signals"]["norm_ratio"] > 0
            assert -1 <= arm["signals"]["cosine"] <= 1
