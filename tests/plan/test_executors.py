"""Executors give the results of one process, bit for bit, and survive killed workers."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from instil.plan.executors.processes import ProcessesExecutor
from instil.plan.executors.selection import select_executor
from instil.plan.run import run
from tests.experiment.small import lines, recipe

FILES = ("alone-0", "alone-1", "distilled-0", "distilled-1")
SHORT = ("baselines=[alone]",)


def weights(folder: Path) -> list[bytes]:
    return [(folder / "checkpoint" / f"{name}.safetensors").read_bytes() for name in FILES]


def records(folder: Path) -> list[dict[str, object]]:
    return [
        {key: value for key, value in line.items() if "second" not in key} for line in lines(folder)
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process, with a teacher of its own."""
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
    assert records(folder) == records(reference)
    assert not (folder / "checkpoint" / "workers").exists()


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
    assert records(folder) == records(reference)
