"""Executors give the results of one process, bit for bit, and survive killed workers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from instil.experiment.experiment import Experiment
from instil.plan.executors.processes import ProcessesExecutor
from instil.plan.executors.selection import select_executor
from instil.plan.plan import Plan
from instil.plan.run import run
from instil.plan.run_folder import RunFolder
from instil.plan.runner import Runner
from instil.tasks.classification import Classification
from tests.experiment.small import recipe, timeless_lines

FILES = ("alone-0", "alone-1", "distilled-0", "distilled-1")
SHORT = ("baselines=[alone]",)


def weights(folder: Path) -> list[bytes]:
    return [(folder / "checkpoint" / f"{name}.safetensors").read_bytes() for name in FILES]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run in one process, with its own teacher."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTIL_CACHE", str(folder / "cache"))
        return run(recipe(*SHORT), folder / "run", None, Console(quiet=True))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def kill_first_worker(killed: list[int], own_process: int) -> None:
    """Kill a worker a second after its start."""
    for _ in range(600):
        command = ["pgrep", "-f", "-P", str(own_process), "instil.plan.worker"]
        processes = subprocess.run(
            command, capture_output=True, text=True, check=False
        ).stdout.split()
        if processes:
            time.sleep(1)
            os.kill(int(processes[0]), signal.SIGKILL)
            killed.append(int(processes[0]))
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_same_weights_and_records(
    reference: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    thread = threading.Thread(target=kill_first_worker, args=(killed, os.getpid()))
    thread.start()
    folder = run(recipe(*SHORT), tmp_path / "run", None, Console(quiet=True), ProcessesExecutor(2))
    thread.join()
    assert killed
    assert weights(folder) == weights(reference)
    assert timeless_lines(folder) == timeless_lines(reference)
    assert not (folder / "checkpoint" / "workers").exists()


@pytest.mark.slow
def test_workers_take_stages_of_a_student(tmp_path: Path) -> None:
    cnn = {"model": "cnn", "options": {"width": 2}}
    stages = [
        {"name": "first", "objectives": {"hint": {"type": "fitnet", "pairs": [[1, 1]]}}},
        {"teacher": "stage:first"},
        {"teacher": "stage:first", "student": {"model": "previous", "freeze": ["stages.0"]}},
    ]
    one = recipe("baselines=[pseudo_labels]", "seeds=[0]", student=cnn, stages=stages)
    alone = run(one, tmp_path / "alone", None, Console(quiet=True))
    folder = run(one, tmp_path / "run", None, Console(quiet=True), ProcessesExecutor(2))
    for name in ("distilled-0", "pseudo_labels-0"):
        paths = (out / "checkpoint" / f"{name}.safetensors" for out in (alone, folder))
        first, second = (path.read_bytes() for path in paths)
        assert first == second
    assert timeless_lines(folder) == timeless_lines(alone)
    assert not list((folder / "checkpoint").glob("*stage*"))


def test_the_teacher_is_scored_by_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.from_recipe(recipe("baselines=[pseudo_labels]", "seeds=[0]"))
    splits: list[int] = []
    evaluate = Classification.evaluate

    def counted(self: Classification, net: Any, batches: Any, teacher: Any = None) -> Any:
        splits.append(1)
        return evaluate(self, net, batches, teacher)

    monkeypatch.setattr(Classification, "evaluate", counted)
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    outputs = []
    for _ in range(2):
        runner = Runner(experiment, RunFolder(tmp_path / "run"), lambda *_: None)
        runner.scores.keeps_outputs = True
        job = next(job for job in Plan.compile(experiment).jobs if job.kind == "evaluate")
        runner.execute(job)
        runner.scores.load_outputs()
        outputs.append(runner.evaluator.teacher_outputs)
        scored = len(splits)
        if len(outputs) == 1:
            # Two epochs of the teacher's training, then both splits.
            assert scored == 4
            monkeypatch.setattr(type(runner.scores.teacher), "forward", None)
    assert len(splits) == 4
    index = {"index": torch.arange(5)}
    for name in ("train", "validation", "test"):
        first, second = (of_runner[name](index)["logits"] for of_runner in outputs)
        assert torch.equal(first, second)


def test_a_training_that_fails_stops_the_run_with_its_message(tmp_path: Path) -> None:
    diverging = recipe(*SHORT, "train.optimizer.lr=1e20")
    with pytest.raises(RuntimeError, match=r"the training of the teacher: step .*teacher_train"):
        run(diverging, tmp_path / "run", None, Console(quiet=True), ProcessesExecutor(2))


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"^--jobs: Ray chooses .* got both$"):
        select_executor(2, "ray")
    with pytest.raises(ValueError, match=r"^--jobs: expected at least 1, got 0$"):
        ProcessesExecutor(0).check()


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    executor = select_executor(1, "127.0.0.1:1")
    with pytest.raises(ValueError, match=r"^--on: there is no Ray cluster at 127\.0\.0\.1:1\."):
        run(recipe(*SHORT), tmp_path / "run", None, Console(quiet=True), executor)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_weights_and_records(reference: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    try:
        folder = run(
            recipe(*SHORT), tmp_path / "run", None, Console(quiet=True), select_executor(1, "ray")
        )
    finally:
        ray.shutdown()
    assert weights(folder) == weights(reference)
    assert timeless_lines(folder) == timeless_lines(reference)
