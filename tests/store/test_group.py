"""Recording by several processes, here threads: the files of one process, and clear ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from instil.core import Batch, Outputs
from instil.store import shard_writer, writer
from instil.store.group import Group
from instil.store.manifest import read_manifest
from instil.store.reader import Store
from instil.store.writer import StoreWriter

SIZE = 3
BATCH = 4
INDEX = torch.arange(29).flip(0)
TIMEOUT = 20


def on_threads(action: Callable[[Group], Any]) -> list[Exception | None]:
    """Run an action in the threads of one group, and return the error of each one."""
    barrier = threading.Barrier(SIZE)
    values: list[Any] = [None] * SIZE

    def errors_of(rank: int) -> Exception | None:
        def gather(value: Any) -> list[Any]:
            values[rank] = value
            barrier.wait(TIMEOUT)
            gathered = list(values)
            barrier.wait(TIMEOUT)
            return gathered

        try:
            action(Group(rank, SIZE, gather))
        except Exception as error:
            return error
        return None

    with ThreadPoolExecutor(SIZE) as pool:
        return list(pool.map(errors_of, range(SIZE)))


def batches(view: int, start: int, end: int) -> list[Batch]:
    rows = range(start, end, BATCH)
    return [batch_of(INDEX[first : min(first + BATCH, end)], view) for first in rows]


def batch_of(index: torch.Tensor, view: int) -> Batch:
    image = index[:, None].float() + view / 8
    return {"image": image, "index": index, "view": torch.full_like(index, view)}


def predict(batch: Batch) -> Outputs:
    return {"logits": batch["image"].sin().expand(-1, 3)}


def counted(batch: Batch) -> torch.Tensor:
    return batch["index"][:, None] % torch.arange(1, 4) == 0


def record(folder: Path, group: Group | None = None, predict: Any = predict) -> None:
    store = StoreWriter(folder, {"teacher": "a"}, group)
    for _ in store.record("train", INDEX, 2, batches, predict, counted=counted, batch_size=BATCH):
        pass
    store.finish({})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shard_bytes", [60, 200, 2**20])
def test_the_files_are_those_of_one_process(
    shard_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", shard_bytes)
    record(tmp_path / "one")
    assert on_threads(lambda group: record(tmp_path / "three", group)) == [None] * SIZE
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_every_row_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 60)
    rows: dict[int, list[tuple[int, int]]] = {rank: [] for rank in range(SIZE)}

    def recording(group: Group) -> None:
        def noting(batch: Batch) -> Outputs:
            index, view = batch["index"].tolist(), batch["view"].tolist()
            rows[group.rank] += zip(index, view, strict=True)
            return predict(batch)

        record(tmp_path / "store", group, noting)

    assert on_threads(recording) == [None] * SIZE
    # The first process computes the first batch once more, for the description of the outputs.
    del rows[0][:BATCH]
    computed = [row for of_rank in rows.values() for row in of_rank]
    assert len(computed) == len(set(computed)) == 2 * len(INDEX)
    assert min(map(len, rows.values())) >= 16


def test_an_error_of_one_process_ends_all_and_the_recording_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 60)
    folder = tmp_path / "store"

    def failing(group: Group) -> None:
        def fails(batch: Batch) -> Outputs:
            if group.rank == 1 and 8 in batch["index"]:
                raise ValueError("no more memory")
            return predict(batch)

        record(folder, group, fails)

    assert [str(error) for error in on_threads(failing)] == ["no more memory"] * SIZE
    assert not read_manifest(str(folder)).complete
    first = {name for name in read_manifest(str(folder)).files if "-0000" in name}
    assert first
    changed = {name: (folder / name).stat().st_mtime_ns for name in first}
    # A process that was killed while it handed rows over.
    (folder / shard_writer.PARTS).mkdir(exist_ok=True)
    (folder / shard_writer.PARTS / "left").touch()
    assert on_threads(lambda group: record(folder, group)) == [None] * SIZE
    assert {name: (folder / name).stat().st_mtime_ns for name in first} == changed
    record(tmp_path / "one")
    assert contents(folder) == contents(tmp_path / "one")
    assert Store(str(folder)).manifest.complete


def test_a_damaged_shard_is_recorded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 60)
    record(tmp_path / "store")
    expected = contents(tmp_path / "store")
    damaged = sorted((tmp_path / "store").glob("train-00001*"))[1]
    damaged.write_bytes(b"damaged")
    assert on_threads(lambda group: record(tmp_path / "store", group)) == [None] * SIZE
    assert contents(tmp_path / "store") == expected


def test_processes_without_a_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 60)
    errors = on_threads(lambda group: record(tmp_path / str(group.rank), group))
    assert all(isinstance(error, FileNotFoundError) for error in errors)
    assert "Expected a folder on a file system that all machines share" in str(errors[0])


def test_wrong_folder_is_an_error_of_all_processes(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    errors = on_threads(lambda group: record(tmp_path, group))
    assert [type(error) for error in errors] == [FileExistsError] * SIZE
