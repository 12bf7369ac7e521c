"""The command on two processes: the same students as on one, whole files, nothing lost when a rank dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from instil.networks.causal_transformer import causal_transformer
from tests.experiment.small import result

TRAIN = {"epochs": 2, "optimizer": {"lr": 1e-2}, "checkpoint_every": 1}
PICTURES: dict[str, Any] = {
    "data": {"name": "digits", "num_labeled": 100, "batch_size": 249},
    "teacher": {"model": "cnn", "options": {"width": 3}},
    "student": {"model": "cnn", "options": {"width": 2}},
    "objectives": {"cross_entropy": {}, "kd": {"temperature": 2}},
    "train": TRAIN,
    "seeds": [0],
    "baselines": [],
    "export": False,
}
TEXTS: dict[str, Any] = {
    "task": "language",
    "data": {"name": "text", "path": "texts", "length": 16, "rows": 16, "held_out": 4},
    "teacher": {
        "model": "causal_transformer",
        "options": {"width": 16, "depth": 2},
        "trained": True,
    },
    "student": {"model": "teacher", "changes": {"lora": {"rank": 2}}},
    "objectives": {"forward_kl": {}},
    "train": TRAIN,
    "seeds": [0],
    "baselines": [],
    "export": False,
}
DIES = """
import os, signal, sys
from instil.experiment import finished
from instil.cli import main
saved = finished.save_student
def save(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
finished.save_student = save
main(sys.argv[1:])
"""
STOPS = """
import os, signal, sys
from instil.engine import checkpoints
from instil.cli import main
write = checkpoints.save
def save(path, *arguments):
    write(path, *arguments)
    if "distilled" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = save
main(sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("INSTIL_RANK_TIMEOUT", "60")
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))
    for name, recipe in (("pictures", PICTURES), ("texts", TEXTS)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "texts").mkdir()
    for index in range(10):
        text = f"{index}: the quick brown fox jumps over the lazy dog. " * 4
        (tmp_path / "texts" / f"{index}.txt").write_text(text)
    return tmp_path


def start(ranks: int, *arguments: str, script: str | None = None) -> subprocess.Popen[str]:
    """``instil run`` on some processes, or a script with the same arguments."""
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    if script is None:
        command += ["-m", "instil.cli"]
    else:
        Path("driver.py").write_text(script)
        command += ["driver.py"]
    return subprocess.Popen(
        [*command, "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ran(ranks: int, *arguments: str, script: str | None = None, code: int = 0) -> str:
    process = start(ranks, *arguments, script=script)
    output, _ = process.communicate(timeout=300)
    assert (process.returncode == 0) == (code == 0), output
    return output


def apart(one: str, other: str) -> float:
    """The largest difference of two students."""
    first, second = (load_file(Path(run) / "student.safetensors") for run in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def test_batch_norm_and_sharding_give_the_student_of_one_process() -> None:
    """BatchNorm of each rank by itself is 0.5 off after two epochs."""
    ran(1, "pictures.yaml", "--out", "one")
    for name, change in (("two", "train.shard=false"), ("sharded", "train.shard=true")):
        ran(2, "pictures.yaml", change, "--out", name)
        assert result(Path(name))["status"] == "complete"
        assert apart("one", name) < 1e-4
    ran(2, "pictures.yaml", "train.sync_batch_norm=false", "--out", "separate")
    assert apart("one", "separate") > 1e-2
    left = {path.suffix for path in Path("sharded/checkpoint").iterdir()}
    assert ".pt" not in left


def test_a_lora_student_of_a_language_model_can_be_sharded() -> None:
    ran(1, "texts.yaml", "--out", "one")
    ran(2, "texts.yaml", "train.shard=true", "--out", "sharded")
    assert apart("one", "sharded") < 1e-5
    both = [result(Path(name))["cost"]["student"]["parameters"] for name in ("one", "sharded")]
    assert both[0] == both[1]
    torch.manual_seed(0)
    assert both[0] > sum(p.numel() for p in causal_transformer(257, 16, 2).parameters())


def test_a_scheme_that_cannot_be_sharded_is_refused_before_training() -> None:
    changes = ("student={model: causal_transformer, options: {width: 8, depth: 1}}",)
    output = ran(2, "texts.yaml", *changes, "scheme.type=on_policy", "train.shard=true", code=2)
    assert "train: OnPolicy uses a part of a net" in output
    assert "set train.shard: false" in output
    assert not list(Path("runs").rglob("metrics.jsonl"))
    ran(2, "texts.yaml", *changes, "scheme.type=on_policy", "--out", "two")
    ran(1, "texts.yaml", *changes, "scheme.type=on_policy", "--out", "one")
    assert apart("one", "two") < 1e-4


def test_a_rank_that_dies_while_it_saves_leaves_the_checkpoint() -> None:
    ran(2, "pictures.yaml", "--out", "straight")
    output = ran(2, "pictures.yaml", "--out", "dies", script=DIES, code=1)
    assert (Path("dies") / "checkpoint" / "distilled-0-stage0.pt").exists(), output
    ran(2, "--resume", "dies")
    assert apart("straight", "dies") == 0


@pytest.mark.parametrize(
    "change",
    ["train.sync_batch_norm=true", "train.sync_batch_norm=false"],
)
def test_a_moving_teacher_with_batch_norm_is_resumed_exactly(change: str) -> None:
    """Its statistics were each rank's own, and those of the first rank were written."""
    recipe = (
        "pictures.yaml",
        "teacher=null",
        "scheme={type: ema, decay: 0.9}",
        "train.epochs=3",
        change,
    )
    ran(2, *recipe, "--out", "straight")
    ran(2, *recipe, "--out", "stopped", script=STOPS, code=1)
    ran(2, "--resume", "stopped")
    assert apart("straight", "stopped") == 0
