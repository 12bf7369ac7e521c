"""Files that a run reads: damaged ones are reported or replaced, and changes are detected."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import instil
from instil import recipe as recipes
from instil.files.checksums import json_with_checksum
from instil.plan.resume import run_lock
from tests.experiment.small import SMALL, numbers, recipe, result, run_of, timeless_lines
from tests.plan.test_run import called, stop_at

SHORT = ("seeds=[0]", "baselines=[alone]")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flip(path: Path, seed: int) -> None:
    content = bytearray(path.read_bytes())
    bit = random.Random(seed).randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def same_students(one: Path, other: Path) -> bool:
    first, second = (load_file(out / "student.safetensors") for out in (one, other))
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint/alone-0.json",
        "checkpoint/alone-0.safetensors",
        "checkpoint/distilled-0.json",
        "checkpoint/distilled-0.safetensors",
        "teacher",
    ],
)
def test_a_damaged_file_of_a_finished_arm_is_named_and_the_arm_trained_again(
    name: str, tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    before = run_of(recipe(*SHORT), out)
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "student.safetensors").write_bytes(
        (out / "student.safetensors").read_bytes()
    )
    records = timeless_lines(out)
    path = next(own_cache.rglob("*.safetensors")) if name == "teacher" else out / name
    flip(path, seed=len(name))
    with caplog.at_level(logging.WARNING, "instil"):
        after = run_of(recipe(*SHORT), out, resume=True)
    assert path.name in caplog.text
    assert "trained again now" in caplog.text
    assert numbers(after) == numbers(before)
    assert same_students(tmp_path / "before", out)
    assert timeless_lines(out) == records


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json", "checkpoint/run.json"])
def test_a_damaged_file_of_the_run_is_one_error_that_names_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT, "baselines=[]"), out)
    content = (out / name).read_bytes()
    for seed in range(4):
        (out / name).write_bytes(content)
        flip(out / name, seed)
        # A flipped bit in a key of the recipe is reported with that key.
        with pytest.raises(ValueError, match=Path(name).stem if name.endswith("json") else ": "):
            run_of(recipes.load(out), out, resume=True)
    (out / name).write_bytes(content)
    assert run_of(recipes.load(out), out, resume=True)["status"] == "complete"


def test_a_recipe_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT, "baselines=[]"), out)
    text = (out / "recipe.yaml").read_text()
    (out / "recipe.yaml").write_text(text.replace("seeds:\n- 0", "seeds:\n- 1"))
    assert recipes.load(out).seeds == [1]
    with pytest.raises(ValueError, match=r"recipe\.yaml: the file was edited or damaged"):
        instil.load(out)
    with pytest.raises(ValueError, match=r"recipe\.yaml: the file was edited or damaged"):
        run_of(recipes.load(out), out, resume=True)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"hardware": {"threads": 0}}'])
def test_other_contents_of_files_are_one_clear_error(content: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT, "baselines=[]"), out)
    for name in ("environment.json", "checkpoint/run.json"):
        before = (out / name).read_text()
        (out / name).write_text(content)
        with pytest.raises(ValueError, match=f"{Path(name).name}: .*\\."):
            run_of(recipe(*SHORT, "baselines=[]"), out, resume=True)
        (out / name).write_text(before)


@pytest.mark.parametrize("text", [None, '{"arm": 3}\nnot json\n[]\n', b"\xff\xfe\x00"])
def test_lines_of_metrics_that_are_lost_are_written_again(
    text: str | bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT), out)
    records = timeless_lines(out)
    if text is None:
        (out / "metrics.jsonl").unlink()
    else:
        content = text.encode() if isinstance(text, str) else text
        (out / "metrics.jsonl").write_bytes(content)
    with caplog.at_level(logging.WARNING, "instil"):
        run_of(recipe(*SHORT), out, resume=True)
    assert timeless_lines(out) == records
    assert ("metrics.jsonl is missing" in caplog.text) == (text is None)


def arrays(path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(60) % 3)


def test_changed_data_and_code_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays(tmp_path / "d.npz", 0)
    code = (
        "from torch import nn\n"
        "def build(classes, **_):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, "
        "classes))\n"
    )
    (tmp_path / "own_net.py").write_text(code)
    own = {
        "folder": str(tmp_path),
        "data": {"name": f"npz:{tmp_path / 'd.npz'}", "batch_size": 8},
        "student": {"model": "own_net:build"},
    }
    one = recipe(*SHORT, **own)
    with monkeypatch.context() as patch:
        stop_at(patch, "distilled", 0, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_of(one, tmp_path / "run")
    arrays(tmp_path / "d.npz", 1)
    with pytest.raises(ValueError, match=r"data \(train split\): changed since the run in"):
        run_of(one, tmp_path / "run", resume=True)
    arrays(tmp_path / "d.npz", 0)
    with monkeypatch.context() as patch:
        patch.setattr("instil.plan.fingerprints.OUTPUTS_VERSION", -1)
        with pytest.raises(ValueError, match="outputs of this version of instil: changed since"):
            run_of(one, tmp_path / "run", resume=True)
    state = tmp_path / "run/checkpoint/run.json"
    before = state.read_text()
    content = json.loads(before)
    # A run of an earlier version has no such entry.
    del content["sha256"], content["inputs"]["outputs of this version of instil"]
    state.write_text(json_with_checksum(content))
    with pytest.raises(ValueError, match="outputs of this version of instil: changed since"):
        run_of(one, tmp_path / "run", resume=True)
    state.write_text(before)
    (tmp_path / "own_net.py").write_text(code.replace("ReLU", "Tanh"))
    with pytest.raises(ValueError, match=r"student\.model \(own_net:build\): changed since"):
        run_of(one, tmp_path / "run", resume=True)
    (tmp_path / "own_net.py").write_text(code)
    assert run_of(one, tmp_path / "run", resume=True)["status"] == "complete"


@pytest.mark.parametrize("path", ["data.surrogate", "teacher.data"])
def test_changed_data_of_a_second_source_are_noticed(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished students must not be compared with students of another teacher or other images."""
    arrays(tmp_path / "d.npz", 0)
    arrays(tmp_path / "other.npz", 1)
    name = f"npz:{tmp_path / 'other.npz'}"
    own: dict[str, Any] = {"data": {"name": f"npz:{tmp_path / 'd.npz'}", "batch_size": 8}}
    if path == "data.surrogate":
        own["data"]["surrogate"] = {"name": name}
        own |= {"objectives": {"kd": {}}, "baselines": []}
    else:
        own["teacher"] = {"model": "networks:mlp", "data": {"name": name}}
        own["baselines"] = ["alone"]
    one = recipe("seeds=[0]", **own)
    with monkeypatch.context() as patch:
        stop_at(patch, "distilled", 0, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_of(one, tmp_path / "run")
    arrays(tmp_path / "other.npz", 2)
    with pytest.raises(ValueError, match=rf"{path}: changed since the run in"):
        run_of(one, tmp_path / "run", resume=True)
    arrays(tmp_path / "other.npz", 1)
    assert run_of(one, tmp_path / "run", resume=True)["status"] == "complete"


def test_a_run_of_a_scheme_that_ships_another_net_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimKD ships the student with a projector and the teacher's head."""
    one = recipe(
        "seeds=[0,1]",
        "baselines=[]",
        student={"model": "cnn", "options": {"width": 2}},
        scheme={"type": "reused_classifier"},
        objectives={"simkd": {}},
    )
    straight = run_of(one, tmp_path / "straight")
    with monkeypatch.context() as patch:
        stop_at(patch, "distilled", 1, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_of(one, tmp_path / "run")
    assert numbers(run_of(one, tmp_path / "run", resume=True)) == numbers(straight)
    assert numbers(run_of(one, tmp_path / "run", resume=True)) == numbers(straight)


def hold(folder: Path, ready: Any, done: Any) -> None:
    lock = run_lock(folder)
    lock.acquire()
    ready.set()
    done.wait(60)


def test_a_second_process_on_a_run_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT, "baselines=[]"), out)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(out, ready, done))
    other.start()
    assert ready.wait(60)
    before = (out / "metrics.jsonl").read_bytes()
    with pytest.raises(RuntimeError, match="another process is working on this run"):
        run_of(recipe(*SHORT, "baselines=[]"), out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == before
    done.set()
    other.join(60)
    assert run_of(recipe(*SHORT, "baselines=[]"), out, resume=True)["status"] == "complete"


def test_a_folder_with_other_files_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_of(recipe(*SHORT), tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").unlink()
    with pytest.raises(FileExistsError, match=r"--out: .* is not empty.*'checkpoint/alone-0"):
        run_of(recipe(*SHORT, "train.epochs=3"), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "result.json").write_text("precious")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    words = ("run", str(tmp_path / "small.yaml"), "--out")
    code, _, err = called(capsys, *words, str(tmp_path / "mine"))
    assert (code, "is not empty" in err) == (2, True)
    assert (tmp_path / "mine" / "result.json").read_text() == "precious"
    monkeypatch.chdir(tmp_path / "mine")
    code, _, err = called(capsys, *words, "")
    assert (code, "expected a folder, got an empty text" in err) == (2, True)
    code, _, err = called(capsys, *words, "new", "--resume", "old")
    assert (code, "Remove one of the two" in err) == (2, True)


def test_what_killed_runs_leave_is_cleaned_when_the_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_of(recipe(*SHORT), out)
    for name in (".result.abcd1234.part.json", "checkpoint/.alone-0.abcd1234.part.safetensors"):
        (out / name).write_text("half")
    (out / "checkpoint" / "alone-0-stage0.pt").write_bytes(b"stale")
    run_of(recipe(*SHORT), out, resume=True)
    left = [path.name for path in out.rglob("*") if ".part" in path.name or path.suffix == ".pt"]
    assert left == []


def test_a_run_is_complete_only_when_the_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from instil.plan import run

    def fail(*_: object, **__: object) -> None:
        raise OSError("no page")

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_report", fail)
        with pytest.raises(OSError, match="no page"):
            run_of(recipe(*SHORT), tmp_path / "run")
    assert result(tmp_path / "run")["status"] != "complete"
    assert run_of(recipe(*SHORT), tmp_path / "run", resume=True)["status"] == "complete"


def test_a_teacher_that_diverges_is_called_the_teacher(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    code, _, err = called(
        capsys,
        *("run", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "run")),
        "teacher_train={optimizer: {type: sgd, lr: 1e30}, epochs: 2}",
    )
    assert code == 1
    assert "the training of the teacher: step " in err
    assert "student" not in err
    assert "teacher_train.optimizer.lr is 1e+30" in err
    assert "batch indices: " in err


def test_termination_is_a_stop_that_can_be_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        yaml.safe_dump(SMALL | {"train": SMALL["train"] | {"epochs": 400}})
    )
    out = tmp_path / "run"
    words = [sys.executable, "-m", "instil.cli", "run", str(tmp_path / "small.yaml")]
    process = subprocess.Popen(
        [*words, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("checkpoint/*.pt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Stopped. Continue with: instil run --resume {out}" in err
    assert json.loads((out / "result.json").read_text())["status"] == "interrupted"
