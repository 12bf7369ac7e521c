"""Sources whose training data are streams."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from instil.data.sources.huggingface import huggingface
from instil.data.sources.webdataset import webdataset
from instil.data.stream_loader import StreamLoader
from instil.data.streams import Stream

datasets = pytest.importorskip("datasets")
tariterators = pytest.importorskip("webdataset.tariterators")

NAMES = ("no", "yes")


def images(count: int) -> Any:
    """Data set with images of one value each, which is the row."""
    kinds = {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    values = {
        "img": [np.full((4, 6, 3), row, np.uint8) for row in range(count)],
        "label": [row % 2 for row in range(count)],
    }
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


def save_parquet(folder: Path) -> None:
    for part in range(4):
        images(40).shard(4, part).to_parquet(str(folder / f"train-{part:05d}-of-00004.parquet"))
    images(10).to_parquet(str(folder / "test-00000-of-00001.parquet"))


def save_to_disk(folder: Path) -> None:
    datasets.DatasetDict({"train": images(40), "test": images(10)}).save_to_disk(str(folder))


@pytest.mark.parametrize(("save", "num_shards"), [(save_parquet, 4), (save_to_disk, 16)])
def test_a_folder_of_datasets_is_streamed(
    tmp_path: Path, save: Callable[[Path], None], num_shards: int
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    save(folder)
    splits = huggingface("data", streaming=True, validation=6, base=tmp_path)
    assert isinstance(splits.train, Stream)
    assert (splits.train.num_shards, splits.classes, splits.kind) == (num_shards, NAMES, "single")
    assert (len(splits.validation), len(splits.test)) == (6, 10)
    loader = StreamLoader(splits.train, 17, workers=2)
    first, second = loader
    values = np.concatenate([batch["image"][:, 0, 0, 0].mul(255).round() for batch in loader])
    assert sorted(values) == list(range(6, 40))
    assert (first["image"].shape, second["label"].tolist()) == (
        (17, 3, 4, 6),
        [int(value) % 2 for value in values[17:]],
    )


def test_json_lines_are_streamed_with_columns(tmp_path: Path) -> None:
    for part in range(2):
        rows = [{"xyz": [part, row], "color": NAMES[row % 2]} for row in range(20)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"train-{part}.jsonl").write_text(text)
    options: dict[str, Any] = {
        "columns": {"vector": "xyz", "label": "color"},
        "streaming": True,
        "validation": 5,
        "test": 5,
    }
    splits = huggingface(str(tmp_path), classes=list(NAMES), **options)
    assert splits.train.facts == {"classes": 2, "features": 2}
    batch = next(iter(StreamLoader(splits.train, 30)))
    assert (batch["vector"][:, 1].long() % 2).tolist() == batch["label"].tolist()
    with pytest.raises(ValueError, match=r"^classes: .* 'single' labels are not known"):
        huggingface(str(tmp_path), **options)
    with pytest.raises(ValueError, match=r"has no column 'colour'\. Did you mean color"):
        huggingface(str(tmp_path), **options | {"columns": {"x": "xyz", "label": "colour"}})


def test_lists_of_classes_are_streamed_as_several_labels(tmp_path: Path) -> None:
    kind = datasets.Features(
        {"x": datasets.Value("float32"), "tags": [datasets.ClassLabel(names=["a", "b", "c"])]}
    )
    values = {"x": [0.0] * 8, "tags": [[0, 2], [], [1], [2]] * 2}
    datasets.Dataset.from_dict(values, features=kind).save_to_disk(str(tmp_path / "tags"))
    columns = {"x": "x", "label": "tags"}
    splits = huggingface(
        "tags", columns=columns, streaming=True, validation=2, test=2, base=tmp_path
    )
    assert splits.kind == "multi"
    assert splits.test.label.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_options_that_a_stream_does_not_have(tmp_path: Path) -> None:
    save_to_disk(tmp_path)
    with pytest.raises(ValueError, match=r"^validation: a share of 0\.15 needs the number"):
        huggingface(str(tmp_path), streaming=True)
    with pytest.raises(ValueError, match=r"^channels: not available with streaming"):
        huggingface(str(tmp_path), streaming=True, channels=1, validation=5)


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for row, sample in enumerate(samples):
            for extension, content in sample.items():
                entry = tarfile.TarInfo(f"{row:04d}.{extension}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def png(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 4), value).save(content, "PNG")
    return content.getvalue()


def array(*values: float) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array(values, np.float32))
    return content.getvalue()


def write_shards(folder: Path) -> None:
    (folder / "shards").mkdir()
    for shard in range(4):
        samples = []
        for row in range(10):
            samples.append({"png": png(shard * 10 + row), "cls": str(row % 2).encode()})
        write_tar(folder / "shards" / f"{shard:03d}.tar", samples)


COLUMNS = {"image": "jpg;png", "label": "cls"}


def test_tar_files_are_streamed(tmp_path: Path) -> None:
    write_shards(tmp_path)
    splits = webdataset(
        "shards/{000..003}.tar", COLUMNS, list(NAMES), validation=5, test=5, base=tmp_path
    )
    assert isinstance(splits.train, Stream)
    assert (splits.train.num_shards, splits.train.facts["channels"]) == (4, 1)
    loader = StreamLoader(splits.train, 15, workers=3)
    values = np.concatenate([batch["image"][:, 0, 0, 0].mul(255).round() for batch in loader])
    labels = np.concatenate([batch["label"] for batch in loader])
    assert sorted(values) == list(range(10, 40))
    assert (labels == values % 2).all()
    by_split = {"train": "shards/00[0-2]*.tar", "validation": "shards/003.tar"}
    with pytest.raises(ValueError, match=r"^test: a share"):
        webdataset(by_split, COLUMNS, list(NAMES), base=tmp_path)
    splits = webdataset(by_split, COLUMNS, list(NAMES), test=5, base=tmp_path)
    assert splits.validation.label.tolist() == [0, 1] * 5


def test_other_files_of_a_tar(tmp_path: Path) -> None:
    samples = [
        {"npy": array(row, 1), "json": json.dumps([row, 2 * row]).encode(), "txt": b"ab"}
        for row in range(6)
    ]
    samples[5].pop("txt")
    write_tar(tmp_path / "a.tar", samples)
    columns = {"x": "npy", "y": "json", "label": "txt"}
    splits = webdataset(
        "a.tar", columns, ["a", "b"], "sequence", validation=1, test=1, base=tmp_path
    )
    batch = splits.train.__getitems__([4, 5])
    assert batch["x"].tolist() == [[4, 1], [5, 1]]
    assert batch["y"].tolist() == [[4, 8], [5, 10]]
    assert batch["label_length"].tolist() == [2, 0]


def test_tar_files_that_cannot_be_read(tmp_path: Path) -> None:
    def read(name: str, columns: dict[str, str] = COLUMNS) -> None:
        webdataset(name, columns, list(NAMES), validation=1, test=1, base=tmp_path)

    with pytest.raises(ValueError, match=r"no 'missing\.tar' in "):
        read("missing.tar")
    with pytest.raises(ValueError, match=r"^path: no file matches \*\.tar in "):
        read("*.tar")
    (tmp_path / "damaged.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match=r"damaged\.tar: "):
        read("damaged.tar")
    write_tar(tmp_path / "a.tar", [{"png": png(1), "cls": b"1", "pkl": b""}])
    with pytest.raises(ValueError, match=r"columns\.image: sample '0000' has no file \.jpg.* png"):
        read("a.tar", {"image": "jpg", "label": "cls"})
    with pytest.raises(ValueError, match=r"columns: unknown extension \.pkl"):
        read("a.tar", {"image": "png", "x": "pkl"})
