"""Recording on two processes: the store of one process, also after a process was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from instil.store.reader import Store
from tests.experiment.small import result
from tests.networks.sources.folders import language_recipe, write_chat, write_model
from tests.plan.test_ranks import start

PICTURES: dict[str, Any] = {
    "data": {"name": "digits", "num_labeled": 101, "batch_size": 24}
    | {"augment": {"crop": 1, "views": 2}},
    "teacher": {"model": "cnn", "options": {"width": 3}},
    "teacher_train": {"epochs": 1, "optimizer": {"lr": 1e-2}},
    "student": {"model": "cnn", "options": {"width": 2}},
    "objectives": {"kd": {"temperature": 2}},
    "train": {"epochs": 1, "optimizer": {"lr": 1e-2}},
    "store": {"path": "store"},
    "seeds": [0],
    "baselines": [],
    "export": False,
}
SMALL_SHARDS = """
from instil.store import writer
writer.SHARD_BYTES = 2000
"""
DIES = (
    SMALL_SHARDS
    + """
import os, signal
from instil.store import files
write, count = files.write_tensors, []
def dies(path, tensors):
    count.append(path)
    if os.environ["RANK"] == "1" and len(count) > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path, tensors)
files.write_tensors = dies
"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record the outputs on one process, and on two, also if one dies."""
    folder = tmp_path_factory.mktemp("recordings")
    write_chat(folder / "chat.jsonl", size=27)
    write_model(folder / "teacher", "llama")
    texts = language_recipe(
        teacher={"model": "transformers:teacher"},
        student={"model": "causal_transformer", "options": {"width": 8, "depth": 1}},
        store={"path": "store"},
        baselines=[],
    )
    del texts["data"]["rows"]
    for name, recipe in (("pictures", PICTURES), ("texts", texts)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def recording(recipe: str, path: str, *changes: str) -> list[str]:
    return ["record", f"{recipe}.yaml", f"store.path={path}", *changes]


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    one = {name: recording(name, f"{name}-one") for name in ("pictures", "texts")}
    assert "ended with 2" not in start(1, one, folder, SMALL_SHARDS)
    two = {
        "pictures": recording("pictures", "pictures-two"),
        "texts": recording("texts", "texts-two", "train.shard=true"),
        "run": ["run", "pictures.yaml", "store.path=pictures-two", "--out", "run"],
        "trained": recording("pictures", "trained", "train.shard=true", "teacher_train.epochs=2"),
    }
    killed = start(2, {"pictures": recording("pictures", "killed")}, folder, DIES)
    assert "another of the 2 processes ended" in killed, killed
    with pytest.raises(ValueError, match="its recording was stopped"):
        Store(str(folder / "killed"))
    two["killed"] = recording("pictures", "killed")
    output = start(2, two, folder, SMALL_SHARDS)
    for name in two:
        for rank in range(2):
            assert f"rank {rank}: {name} ended with 0" in output, output
    return output


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.zst")}


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    del content["sha256"]
    # Measured times differ between any two recordings.
    content["teacher"] = {name: content["teacher"][name] for name in ("test", "validation")}
    return content


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures-two", "texts-two", "killed"])
def test_the_store_is_that_of_one_process(name: str, folder: Path, output: str) -> None:
    expected = folder / ("texts-one" if name == "texts-two" else "pictures-one")
    assert len(shards(expected)) > 8
    assert shards(folder / name) == shards(expected)
    assert manifest(folder / name) == manifest(expected)
    left = {path.name for path in (folder / name).iterdir()}
    assert left == {"manifest.json", *shards(expected)}


@pytest.mark.slow
def test_two_processes_learn_from_the_store(folder: Path, output: str) -> None:
    assert result(folder / "run")["status"] == "complete"
    assert output.count("The teacher's outputs are in trained") == 1


@pytest.mark.slow
def test_the_processes_train_a_sharded_teacher_first(folder: Path, output: str) -> None:
    store = Store(str(folder / "trained"))
    assert store.manifest.teacher.seconds > 0
    index, view = torch.arange(3), torch.zeros(3, dtype=torch.long)
    assert store.read("train", index, view)[0]["logits"].isfinite().all()
    assert not list((folder / "cache").glob("tmp*"))
