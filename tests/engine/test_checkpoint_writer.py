"""Writer of checkpoints: folders of sharded trainings are written during the next steps."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from instil.engine import Engine, Optimization
from instil.engine.checkpoint_paths import (
    FILES,
    commit_folder,
    delete_checkpoint_files,
    newest_intact,
    previous_path,
    unfinished_path,
)
from instil.engine.shard_reader import SafeUnpickler
from instil.files.checksums import DamagedFileError
from instil.objectives.logits.kd import KD
from instil.schemes.offline.offline import Offline
from instil.teachers.frozen import Frozen
from instil.training.step import train_step
from tests.engine.sharded_on_ranks import batch_of, texts
from tests.test_parity import on_two_ranks


@pytest.mark.slow
def test_steps_errors_and_killed_processes(tmp_path: Path) -> None:
    results = on_two_ranks("tests.engine.background_on_ranks", tmp_path / "two.pt")
    path = tmp_path / "checkpoint.pt"
    assert results["exists_during_step"] is False
    assert "could not be written; the last good one stays: no room" in results["error"]
    # The process ended while it wrote the fourth one.
    assert unfinished_path(path).is_dir()
    assert newest_intact(path) == path
    engine = Engine("cpu")
    scheme, whole = (Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()}) for _ in range(2))
    ends = []
    for one, num_done in ((scheme, 1), (whole, 0)):
        engine = Engine("cpu")
        engine.prepare(one, batch_of(0))
        engine.setup(one, lambda learner: Optimization("adamw", {"lr": 0.01}))
        if num_done:
            # The weights are those of the call, not those after the step that followed it.
            assert engine.load(one, path)["step"] == num_done
        one.train()
        for step in range(num_done, 3):
            train_step(engine, one, [batch_of(step)])
        ends.append(dict(one.student.state_dict()))
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=0)
    other = Offline(texts(16, 0), Frozen(texts(16, 1)), {"kd": KD()})
    other.prepare(batch_of(0))
    engine.setup(other, lambda learner: Optimization("adamw", {"lr": 0.01}))
    with pytest.raises(ValueError, match="is of another scheme"):
        engine.load(other, path)


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "shard").write_text(text, encoding="utf-8")
    return path


def test_the_previous_folder_stays(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for text in ("one", "two", "three"):
        commit_folder(folder(unfinished_path(path), text), path)
        assert not unfinished_path(path).exists()
    assert (path / "shard").read_text(encoding="utf-8") == "three"
    assert (previous_path(path) / "shard").read_text(encoding="utf-8") == "two"
    assert newest_intact(path) == path
    (path / "shard").write_text("damaged", encoding="utf-8")
    assert newest_intact(path) == previous_path(path)
    (previous_path(path) / FILES).unlink()
    assert newest_intact(path) is None
    folder(unfinished_path(path), "four")
    delete_checkpoint_files(path)
    assert [*tmp_path.iterdir()] == []


def test_damaged_folders_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    commit_folder(folder(unfinished_path(path), "shard"), path)
    (path / "shard").write_text("damaged", encoding="utf-8")
    scheme = Offline(texts(8, 0), Frozen(texts(16, 1)), {"kd": KD()})
    with pytest.raises(DamagedFileError, match="the file is damaged"):
        Engine("cpu").load(scheme, path)


def test_descriptions_of_shards_run_no_code() -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.getenv, ("HOME",)

    with pytest.raises(pickle.UnpicklingError, match="is not part of a checkpoint"):
        SafeUnpickler(io.BytesIO(pickle.dumps(Code()))).load()
    size = torch.Size([2, 3])
    assert SafeUnpickler(io.BytesIO(pickle.dumps((size, torch.float32)))).load()[0] == size
