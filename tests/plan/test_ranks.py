"""Training on two processes: the same students as on one, complete files, and resumption."""

from __future__ import annotations

import json
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
        "is_trained": True,
    },
    "student": {"model": "teacher", "changes": {"lora": {"rank": 2}}},
    "objectives": {"forward_kl": {}},
    "train": TRAIN,
    "seeds": [0],
    "baselines": [],
    "export": False,
}
ON_POLICY = (
    "texts.yaml",
    "student={model: causal_transformer, options: {width: 8, depth: 1}}",
    "scheme.type=on_policy",
)
MOVING_TEACHER = (
    "pictures.yaml",
    "teacher=null",
    "scheme={type: ema, decay: 0.9}",
    "train.epochs=3",
)
SYNCED = "train.sync_batch_norm=true"
SEPARATE = "train.sync_batch_norm=false"

# Runs of one start of two processes: most of the time of a run is that of importing PyTorch.
TOGETHER = {
    "pictures": ("pictures.yaml", "train.shard=false"),
    "pictures-sharded": ("pictures.yaml", "train.shard=true"),
    "pictures-separate": ("pictures.yaml", SEPARATE),
    "texts-sharded": ("texts.yaml", "train.shard=true"),
    "on-policy-sharded": (*ON_POLICY, "train.shard=true"),
    "on-policy": ON_POLICY,
    "rollouts-sharded": (*ON_POLICY, "scheme.rollouts.staleness=1", "train.shard=true"),
    "moving-synced": (*MOVING_TEACHER, SYNCED),
    "moving-separate": (*MOVING_TEACHER, SEPARATE),
}
ALONE = {
    "pictures-alone": ("pictures.yaml",),
    "texts-alone": ("texts.yaml",),
    "on-policy-alone": ON_POLICY,
}
KILLED = {
    "dies": ("pictures.yaml",),
    "stopped-synced": (*MOVING_TEACHER, SYNCED),
    "stopped-separate": (*MOVING_TEACHER, SEPARATE),
}
REFUSED = "rollouts-sharded"

DRIVER = """
import json, os, sys
from instil.cli import main
rank = int(os.environ.get("RANK", 0))
for name, arguments in json.loads(sys.argv[1]).items():
    try:
        main(arguments)
    except SystemExit as end:
        print(f"rank {rank}: {name} ended with {end.code}", flush=True)
"""
DIES = """
import os, signal
from instil.plan import finished_students as finished
def save(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
finished.save_student = save
"""
STOPS = """
import os, signal
from instil.engine import checkpoints
write = checkpoints.save
def save(path, *arguments):
    write(path, *arguments)
    if "distilled" in path.name:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = save
"""


def start(ranks: int, runs: dict[str, list[str]], folder: Path, patch: str = "") -> str:
    """Execute ``instil`` commands one after the other in the same processes; return the output."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "INSTIL_CACHE": str(folder / "cache"),
        "INSTIL_RANK_TIMEOUT": "60",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]),
    }
    (folder / "driver.py").write_text(patch + DRIVER)
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    process = subprocess.run(
        [*command, "driver.py", json.dumps(runs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        timeout=600,
    )
    return process.stdout


def commands(runs: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: ["run", *arguments, "--out", name] for name, arguments in runs.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with recipes and texts of all runs."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, recipe in (("pictures", PICTURES), ("texts", TEXTS)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "texts").mkdir()
    for index in range(10):
        text = f"{index}: the quick brown fox jumps over the lazy dog. " * 4
        (folder / "texts" / f"{index}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    """Return the output of all runs on two processes; the runs on one process come first."""
    alone = start(1, commands(ALONE), folder)
    for name in ALONE:
        assert f"rank 0: {name} ended with 0" in alone, alone
    together = start(2, commands(TOGETHER), folder)
    for name in TOGETHER:
        code = 2 if name == REFUSED else 0
        for rank in range(2):
            assert f"rank {rank}: {name} ended with {code}" in together, together
    return together


@pytest.fixture(scope="module")
def killed(folder: Path, output: str) -> dict[str, str]:
    """Return the output of each killed run; all of them are resumed afterwards."""
    outputs = {}
    for name, command in commands(KILLED).items():
        patch = DIES if name == "dies" else STOPS
        outputs[name] = start(2, {name: command}, folder, patch)
        assert "ended with 0" not in outputs[name], outputs[name]
        checkpoint = folder / name / "checkpoint" / "distilled-0-stage0.pt"
        assert checkpoint.exists(), outputs[name]
        assert not (folder / name / "student.safetensors").exists()
    resumed = start(2, {name: ["run", "--resume", name] for name in KILLED}, folder)
    for name in KILLED:
        assert f"rank 0: {name} ended with 0" in resumed, resumed
    return outputs


def difference(one: Path, other: Path) -> float:
    """Return the largest difference between the parameters of two students."""
    first = load_file(one / "student.safetensors")
    second = load_file(other / "student.safetensors")
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.mark.slow
def test_batch_norm_and_sharding_give_the_student_of_one_process(folder: Path, output: str) -> None:
    """BatchNorm of each rank by itself differs by 0.5 after two epochs."""
    alone = folder / "pictures-alone"
    for name in ("pictures", "pictures-sharded"):
        assert result(folder / name)["status"] == "complete"
        assert difference(alone, folder / name) < 1e-4
    assert difference(alone, folder / "pictures-separate") > 1e-2
    left = {path.suffix for path in (folder / "pictures-sharded/checkpoint").iterdir()}
    assert ".pt" not in left


@pytest.mark.slow
def test_a_lora_student_of_a_language_model_can_be_sharded(folder: Path, output: str) -> None:
    runs = [folder / name for name in ("texts-alone", "texts-sharded")]
    assert difference(*runs) < 1e-5
    sizes = [result(run)["cost"]["student"]["parameters"] for run in runs]
    assert sizes[0] == sizes[1]
    torch.manual_seed(0)
    assert sizes[0] > sum(p.numel() for p in causal_transformer(257, 16, 2).parameters())


@pytest.mark.slow
def test_a_scheme_that_cannot_be_sharded_is_refused_before_training(
    folder: Path, output: str
) -> None:
    assert (
        "train: OnPolicy keeps a whole copy of the student for the texts of later steps" in output
    )
    assert "set train.shard: false" in output
    assert not list((folder / REFUSED).rglob("metrics.jsonl"))


@pytest.mark.slow
def test_a_student_learns_from_its_own_texts_on_ranks(folder: Path, output: str) -> None:
    for name in ("on-policy", "on-policy-sharded"):
        assert difference(folder / "on-policy-alone", folder / name) < 1e-4


@pytest.mark.slow
def test_a_rank_that_dies_while_it_saves_leaves_the_checkpoint(
    folder: Path, killed: dict[str, str]
) -> None:
    assert difference(folder / "pictures", folder / "dies") == 0


@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["synced", "separate"])
def test_a_moving_teacher_with_batch_norm_is_resumed_exactly(
    folder: Path, killed: dict[str, str], statistics: str
) -> None:
    """Its statistics were each rank's own, and those of the first rank were written."""
    assert difference(folder / f"moving-{statistics}", folder / f"stopped-{statistics}") == 0
