"""Outputs of texts are stored without the tokens that no loss reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from instil.core import Batch, Outputs
from instil.roles import Projection
from instil.store import files, writer
from instil.store.counted import COUNTED, counted_names, pack, unpack
from instil.store.outputs import Tensors, flatten_outputs
from instil.store.reader import Store
from instil.store.writer import StoreWriter

SIZE, LENGTH, WIDTH = 7, 5, 3
STATES = torch.randn(SIZE, LENGTH, WIDTH)
MASK = torch.rand(SIZE, LENGTH) < 0.4
MASK[2] = False
HEAD = torch.randn(4, WIDTH)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTIL_CACHE", str(tmp_path / "cache"))


def batches(view: int, start: int, end: int) -> Iterator[Batch]:
    for index in torch.arange(start, end).split(2):
        yield {"input_ids": index[:, None], "index": index, "view": torch.zeros_like(index)}


def predict(batch: Batch) -> Outputs:
    states = STATES[batch["index"]]
    features = (states * 2,)
    # A batch is filled up with repeated rows.
    outputs = {"projection": Projection(states.repeat(2, 1, 1), HEAD)}
    return outputs | {"features": tuple(level.repeat(2, 1, 1) for level in features)}


def recorded(folder: Path) -> Store:
    under_way = StoreWriter(folder, {"teacher": "a"})
    mask = lambda batch: MASK[batch["index"]]  # noqa: E731
    list(under_way.record("train", torch.arange(SIZE), 1, batches, predict, counted=mask))
    under_way.finish({})
    return Store(str(folder))


@pytest.mark.parametrize("shard_bytes", [100, 2**20])
def test_only_counted_tokens_are_stored(
    shard_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", shard_bytes)
    store = recorded(tmp_path / "s")
    index = torch.tensor([6, 2, 2, 0, 5])
    outputs, _ = store.read("train", index, torch.zeros_like(index))
    expected = STATES[index] * MASK[index][..., None]
    assert torch.equal(outputs["projection"].hidden, expected)
    assert torch.equal(outputs["projection"].weight, HEAD)
    assert torch.equal(outputs["features"][0], STATES[index] * 2)
    section = store.manifest.sections["train"]
    assert section.counted == ["projection.hidden"]
    num_rows = 0
    for start in range(0, SIZE, section.rows):
        file = section.shard("train", 0, start)
        path = files.fetch_unpacked(f"{store.url}/{file}", store.manifest.files[file])
        num_rows += len(files.map_tensors(path, file)["projection.hidden"])
    assert num_rows == int(MASK.sum())


def test_a_tensor_with_a_second_role_keeps_all_tokens() -> None:
    rows: Tensors = {}
    both = {"features": (STATES,), "projection": Projection(STATES, HEAD)}
    outputs = {role: flatten_outputs(value, role, rows, {}) for role, value in both.items()}
    assert counted_names(rows, outputs, MASK) == []


def test_a_tensor_of_another_length_keeps_all_tokens() -> None:
    rows: Tensors = {}
    outputs = {"logits": flatten_outputs(STATES[:, 1:], "logits", rows, {})}
    assert counted_names(rows, outputs, MASK) == []


def test_unpack_restores_what_pack_keeps() -> None:
    packed = pack({"logits": STATES}, ["logits"], MASK)
    assert len(packed["logits"]) == int(MASK.sum())
    rows = torch.tensor([3, 3, 0, 2])
    values = unpack(packed["logits"], packed[COUNTED], rows)
    assert torch.equal(values, STATES[rows] * MASK[rows][..., None])


def test_a_wrong_mask_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = recorded(tmp_path / "s")
    index = torch.arange(2)
    read = files.map_tensors
    for mask in (MASK[:3], MASK.int(), ~MASK):
        broken = Store(str(tmp_path / "s"))
        with monkeypatch.context() as patch:
            patch.setattr(
                files,
                "map_tensors",
                lambda path, url, mask=mask: {
                    name: mask if name == COUNTED else tensor
                    for name, tensor in read(path, url).items()
                },
            )
            with pytest.raises(ValueError, match="does not match its manifest"):
                broken.read("train", index, torch.zeros_like(index))
    store.read("train", index, torch.zeros_like(index))
