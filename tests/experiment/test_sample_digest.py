"""The digest of a data set depends on every sample up to its limit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from instil.data.images import ArrayData, LazyData
from instil.data.label_kinds import BoxData
from instil.data.nodes import Nodes
from instil.data.pictures import Files, Pictures
from instil.data.samples import TensorData
from instil.experiment import sample_digest as module
from instil.experiment.sample_digest import sample_digest

N = 1000


def array(row: int | None = None) -> ArrayData:
    """Return images, one with a changed pixel."""
    image = torch.zeros(N, 1, 4, 4, dtype=torch.uint8)
    if row is not None:
        image[row, 0, 1, 1] = 1
    return ArrayData(image, torch.arange(N) % 2, ("a", "b"))


@pytest.mark.parametrize("row", [0, 7, 8, 500, N - 1])
def test_every_input_in_memory_counts(row: int) -> None:
    """Only 64 inputs of a split counted once: row 8 was none of them."""
    assert sample_digest(array()) == sample_digest(array())
    assert sample_digest(array(row)) != sample_digest(array())


def test_every_label_and_class_name_counts() -> None:
    data = array()
    label = data.label.clone()
    label[8] = 1 - label[8]
    assert sample_digest(data.relabel(label)) != sample_digest(data)
    other = ArrayData(data.image, data.label, ("a", "c"))
    assert sample_digest(other) != sample_digest(data)


def test_every_key_of_tensors_counts() -> None:
    tensors = {"a": torch.zeros(N, 2), "b": torch.zeros(N, dtype=torch.bfloat16)}
    data = TensorData(tensors, torch.zeros(N, dtype=torch.long), ("a",))
    changed = dict(tensors, b=tensors["b"].index_fill(0, torch.tensor([9]), 1))
    assert sample_digest(TensorData(changed, data.label, ("a",))) != sample_digest(data)


def test_shape_type_and_key_count() -> None:
    """The bytes of all these inputs are the same."""
    image = torch.zeros(4, 2, 3)
    inputs = [
        {"a": image},
        {"b": image},
        {"a": image.mT.contiguous()},
        {"a": image.view(torch.int32)},
    ]
    label = torch.zeros(4, dtype=torch.long)
    assert len({sample_digest(TensorData(value, label, ("a",))) for value in inputs}) == 4


def test_large_inputs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 100 * 16 * 4)
    read = module._rows(array())
    assert len(read) == 100
    assert (read[0], read[-1]) == (0, N - 1)
    assert sample_digest(array(N - 1)) != sample_digest(array())


def pictures(folder: Path) -> LazyData:
    for index in range(100):
        picture = Image.fromarray(np.full((4, 4), index, dtype=np.uint8))
        picture.save(folder / f"{index}.bmp")
    paths = tuple(folder / f"{index}.bmp" for index in range(100))
    return LazyData(Pictures(Files(paths), "L"), torch.zeros(100, dtype=torch.long), ("a",))


def test_every_byte_of_picture_files_counts(tmp_path: Path) -> None:
    """Also where size and time of a file stay the same; a copied folder has the same digest."""
    data = pictures(tmp_path)
    before = sample_digest(data)
    path = tmp_path / "41.bmp"
    times = path.stat()
    os.utime(path, (1, 1))
    again = data.subset(range(100))
    assert sample_digest(again) == before
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, (times.st_atime, times.st_mtime))
    assert sample_digest(data.subset(range(100))) != before


def test_sizes_of_all_files_count_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 1)
    monkeypatch.setattr(module, "FEWEST_SAMPLES", 2)
    data = pictures(tmp_path)
    before = sample_digest(data)
    with (tmp_path / "41.bmp").open("ab") as file:
        file.write(b"1")
    assert sample_digest(data.subset(range(100))) != before


def test_few_samples_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def read(row: int) -> np.ndarray:
        rows.append(row)
        return np.zeros((2, 2), dtype=np.uint8)

    monkeypatch.setattr(module, "MOST_COMPUTED", 50)
    data = LazyData(read, torch.zeros(N, dtype=torch.long), ("a",))
    assert sample_digest(data) == sample_digest(data)
    assert len(set(rows)) == 50
    assert len(rows) == 51


def test_boxes_and_edges_count() -> None:
    """Data of other boxes, or of another graph, must not have the digest of these."""
    image = {"image": torch.zeros(2, 1, 4, 4)}
    box = [[[0.0, 0, 2, 2]], [[1.0, 1, 3, 3]]]
    data = BoxData(image, box, [[0], [0]], ["a"])
    moved = BoxData(image, [box[0], [[1.0, 1, 4, 4]]], [[0], [0]], ["a"])
    assert sample_digest(moved) != sample_digest(data)
    empty = BoxData(image, [box[0], []], [[0], []], ["a"])
    unlabelled = BoxData(image, [box[0], None], [[0], None], ["a"])
    assert sample_digest(unlabelled) != sample_digest(empty)

    def graph(source: int) -> Nodes:
        edges = torch.tensor([[source], [1]])
        return Nodes(torch.ones(3, 2), edges, 1, torch.zeros(2), ["a"], torch.arange(2))

    assert sample_digest(graph(2)) != sample_digest(graph(0))
