"""Sources whose columns are mapped to any keys of a batch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from instil.core import UNLABELLED
from instil.data import row_groups
from instil.data.augmentation import BoxAugmentation
from instil.data.images import ArrayData
from instil.data.loader import Loader
from instil.data.samples import Samples
from instil.data.sources.huggingface import huggingface
from instil.data.sources.jsonl import jsonl
from instil.data.sources.npz import npz
from instil.data.sources.parquet import parquet

pyarrow = pytest.importorskip("pyarrow")
COLORS = ("blue", "red")


def write_parquet(path: Path, **columns: Any) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def png(value: int, size: int = 4) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (size, size), (value, 0, 0)).save(content, "PNG")
    return content.getvalue()


def test_parquet_columns_are_any_keys_in_any_number_of_files(tmp_path: Path) -> None:
    for part in range(2):
        points = [[[float(part), 0.0, row] for row in range(5)]] * 10
        colors = [COLORS[row % 2] for row in range(10)]
        write_parquet(tmp_path / f"part-{part}.parquet", xyz=points, color=colors, unused=[0] * 10)
    write_parquet(tmp_path / "test.parquet", xyz=[[[0.0] * 3] * 5] * 4, color=["red"] * 4)
    files = {"train": "part-*.parquet", "test": "test.parquet"}
    data = parquet(files, {"points": "xyz", "label": "color"}, base=tmp_path)
    assert (data.kind, data.classes) == ("single", COLORS)
    assert (len(data.train), len(data.validation), len(data.test)) == (17, 3, 4)
    batch = data.train.__getitems__([0, 16])
    assert batch["points"].shape == (2, 5, 3)
    assert batch["points"].dtype == torch.float32
    assert batch["points"][:, 0, 0].tolist() == [0, 1]
    assert batch["label"].dtype == torch.int64


def test_pictures_in_parquet_are_images(tmp_path: Path) -> None:
    pictures = [{"bytes": png(255 * (row % 2), 4 + row % 3), "path": None} for row in range(20)]
    write_parquet(tmp_path / "a.parquet", img=pictures, y=[row % 2 for row in range(20)])
    columns = {"image": "img", "label": "y"}
    data = parquet("a.parquet", columns, size=4, base=tmp_path)
    assert isinstance(data.train, ArrayData)
    assert data.train.facts == {"classes": 2, "channels": 3, "size": 4}
    batch = data.train.__getitems__(range(len(data.train)))
    assert torch.equal(batch["image"][:, 0, 0, 0], batch["label"].float())
    with pytest.raises(ValueError, match=r"shapes .* Set size for pictures"):
        parquet("a.parquet", columns, base=tmp_path)


def test_jsonl_has_sequences_of_different_lengths(tmp_path: Path) -> None:
    rows = [{"wave": [0.5] * (1 + row % 3), "text": "abba"[: row % 4]} for row in range(20)]
    rows[3]["text"] = None
    write_jsonl(tmp_path / "a.jsonl", rows)
    data = jsonl("a.jsonl", {"audio": "wave", "label": "text"}, labels="sequence", base=tmp_path)
    assert (data.kind, data.classes) == ("sequence", ("a", "b"))
    batch = data.train.__getitems__([0, 1, 2])
    assert batch["audio"].shape[1] == 3
    assert (batch["audio"] != 0).sum(1).tolist() == batch["audio_length"].tolist()
    assert batch["label_length"].max() <= 3


def test_jsonl_has_boxes_and_samples_without_labels(tmp_path: Path) -> None:
    row = {"image": [[0.5] * 4] * 4, "edges": [[0, 0, 2, 2]], "y": [1]}
    write_jsonl(tmp_path / "a.jsonl", [row] * 10 + [{**row, "edges": [], "y": []}] * 10)
    data = jsonl(
        "a.jsonl", {"image": "image", "box": "edges", "label": "y"}, ["a", "b"], base=tmp_path
    )
    assert data.kind == "boxes"
    assert set(data.train.__getitems__(range(8))["num_boxes"].tolist()) <= {0, 1}
    assert jsonl("a.jsonl", {"image": "image"}, base=tmp_path).kind == "none"


def test_a_null_label_of_boxes_or_classes_is_no_label(tmp_path: Path) -> None:
    row = {"image": [[0.5] * 4] * 4, "edges": [[0, 0, 2, 2]], "y": [1], "m": [1, 0]}
    empty = row | {"edges": [], "y": [], "m": []}
    missing = row | {"edges": None, "y": None, "m": None}
    write_jsonl(tmp_path / "a.jsonl", [row] * 10 + [empty] * 10 + [missing] * 10)
    files = dict.fromkeys(("train", "validation", "test"), "a.jsonl")
    data = jsonl(files, {"image": "image", "box": "edges", "label": "y"}, ["a", "b"], base=tmp_path)
    counts = data.train.__getitems__(range(30))["num_boxes"].tolist()
    assert counts == [1] * 10 + [0] * 10 + [UNLABELLED] * 10
    several = jsonl(
        files, {"image": "image", "label": "m"}, ["a", "b"], labels="multi", base=tmp_path
    )
    assert several.train.label[9:21:10].tolist() == [[1, 1], [0, 0]]
    assert (several.train.label[20:] == UNLABELLED).all()
    write_jsonl(tmp_path / "a.jsonl", [row] * 10 + [missing] * 10)
    same = jsonl(files, {"image": "image", "box": "edges", "label": "y"}, ["a", "b"], base=tmp_path)
    assert same.train.has_label.sum() == 10


def test_real_and_multiple_labels(tmp_path: Path) -> None:
    rows = [{"x": [1.0, row], "y": row / 3, "m": [row % 2, 1.0]} for row in range(20)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    columns = {"features": "x", "label": "y"}
    data = jsonl("a.jsonl", columns, base=tmp_path)
    assert (data.kind, data.train.facts) == ("real", {"classes": 1, "features": 2})
    assert jsonl("a.jsonl", {**columns, "label": "m"}, base=tmp_path).kind == "multi"
    graded = jsonl("a.jsonl", {**columns, "label": "m"}, labels="graded", base=tmp_path)
    assert graded.kind == "graded"


def test_arrays_of_an_archive_have_any_names(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        clip=np.full((20, 3, 2, 8, 8), 255, np.uint8),
        depth=np.zeros((20, 8, 8)),
        name=np.array(["cat", "dog"] * 10),
        split=np.array([0] * 12 + [1] * 4 + [2] * 4),
    )
    columns = {"video": "clip", "depth": "depth", "label": "name"}
    data = npz("a.npz", columns=columns, base=tmp_path)
    batch = data.test.__getitems__([0, 1])
    assert batch["video"].shape == (2, 3, 2, 8, 8)
    assert batch["video"].max() == 1
    assert batch["depth"].dtype == torch.float32
    assert (len(data.train), data.classes) == (12, ("cat", "dog"))
    with pytest.raises(ValueError, match=r"columns\.video: no array 'clop'. Did you mean clip"):
        npz("a.npz", columns={"video": "clop"}, base=tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_modality_with_nan_is_refused(tmp_path: Path, value: float) -> None:
    depth = np.zeros((9, 1, 4, 4), np.float32)
    depth[5, 0, 2, 3] = value
    arrays = {"rgb": np.zeros((9, 3, 4, 4), np.uint8), "depth": depth, "y": np.arange(9) % 2}
    np.savez(tmp_path / "pairs.npz", **arrays)  # type: ignore[arg-type]
    message = r"pairs\.npz: columns\.depth: row 5 has NaN or infinite values\. Expected finite"
    with pytest.raises(ValueError, match=message):
        npz("pairs.npz", columns={"image": "rgb", "depth": "depth", "label": "y"}, base=tmp_path)


def test_columns_of_a_hugging_face_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "wave": datasets.Sequence(datasets.Value("float32"), 6),
            "word": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    rows = {"wave": [[float(row)] * 6 for row in range(20)], "word": [row % 2 for row in range(20)]}
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "words")
    data = huggingface("words", columns={"audio": "wave", "label": "word"}, base=tmp_path)
    assert data.classes == ("no", "yes")
    batch = data.train.__getitems__([0])
    assert batch["audio"].shape == (1, 6)
    assert int(batch["audio"][0, 0]) % 2 == int(batch["label"])
    with pytest.raises(ValueError, match="'words' has no column 'sound'"):
        huggingface("words", columns={"audio": "sound"}, base=tmp_path)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"x": [1.0]}], {"audio": "y"}, r"columns: .*a\.jsonl has no column 'y'. It has x"),
        ([{"x": [1.0]}, {}], {"audio": "x"}, r"a\.jsonl: column 'x': row 1 has no value"),
        ([{"x": "a"}, {"x": 1}], {"a": "x"}, r"a\.jsonl: column 'x': row 1 is int\. Expected a te"),
        (
            [{"x": "a"}] * 20,
            {"a": "x"},
            r"columns\.a: its values are texts, such as .a.\. Expected numbers",
        ),
        ([{"x": [1]}], {"label": "x"}, "there is no input"),
        ([[1]], {"a": "x"}, r"a\.jsonl, line 1: expected an object, got list"),
        ([{"x": [[1], [1, 2]]}], {"a": "x"}, r"column 'x': its lists differ in length below"),
        ([{"x": [True, None]}], {"a": "x"}, r"column 'x': its values are object. Expected numbers"),
        (
            [{"x": [1.0], "y": "a"}] * 20,
            {"a": "x", "label": "y"},
            r"columns\.label: no class 'a'",
        ),
    ],
)
def test_wrong_columns_are_errors_with_the_path(
    tmp_path: Path, rows: list[Any], columns: dict[str, str], message: str
) -> None:
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        jsonl("a.jsonl", columns, ["b", "c"], base=tmp_path)


def test_unreadable_files_are_errors_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no parquet")
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x":\n')
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read as a Parquet file"):
        parquet("a.parquet", {"a": "x"}, base=tmp_path)
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: the line is not JSON"):
        jsonl("a.jsonl", {"a": "x"}, base=tmp_path)
    with pytest.raises(ValueError, match=r"no file matches b-\*\.jsonl"):
        jsonl("b-*.jsonl", {"a": "x"}, base=tmp_path)
    with pytest.raises(ValueError, match=r"files\.tran: .* Did you mean train"):
        jsonl({"tran": "a.jsonl"}, {"a": "x"}, base=tmp_path)
    write_parquet(tmp_path / "img.parquet", img=[b"no picture"] * 3)
    with pytest.raises(ValueError, match=r"column 'img': row 0 cannot be read as a picture"):
        parquet("img.parquet", {"image": "img"}, base=tmp_path)
    write_parquet(tmp_path / "b.parquet", x=[[1.0, 2.0]] * 4)
    write_parquet(tmp_path / "c.parquet", x=[1.0] * 4)
    with pytest.raises(ValueError, match=r"c\.parquet: values are float64 \(\). Expected float64"):
        parquet({"train": ["b.parquet", "c.parquet"]}, {"x": "x"}, base=tmp_path)


def write_groups(folder: Path, **changed: Any) -> None:
    import pyarrow.parquet

    for part in range(2):
        rows = range(60 * part, 60 * part + 60)
        columns = {"x": [[float(row), 1.0] for row in rows], "y": [row % 2 for row in rows]}
        table = pyarrow.table(columns | changed)
        pyarrow.parquet.write_table(table, folder / f"part-{part}.parquet", row_group_size=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_row_groups_are_read_when_needed(tmp_path: Path, workers: int) -> None:
    write_groups(tmp_path)
    columns = {"features": "x", "label": "y"}
    whole = parquet("part-*.parquet", columns, base=tmp_path)
    lazy = parquet("part-*.parquet", columns, base=tmp_path, in_memory=False)
    assert (lazy.kind, lazy.classes, lazy.train.facts) == ("single", ("0", "1"), whole.train.facts)
    for name in ("train", "validation", "test"):
        part, expected = getattr(lazy, name), getattr(whole, name)
        rows = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
        for key, value in expected.__getitems__(rows).items():
            assert torch.equal(part.__getitems__(rows)[key], value), key
    loader = Loader(lazy.train, 10, seed=3, workers=workers)
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        epochs.append([batch["features"][:, 0].tolist() for batch in loader])
    assert epochs[0] == epochs[2] != epochs[1]
    seen = sorted(value for batch in epochs[0] for value in batch)
    assert len(set(seen)) == len(seen) == len(lazy.train) // 10 * 10


def test_each_rank_reads_its_part_of_the_same_order(tmp_path: Path) -> None:
    write_groups(tmp_path)
    lazy = parquet("part-*.parquet", {"features": "x"}, base=tmp_path, in_memory=False)
    assert lazy.kind == "none"
    alone = [batch["features"] for batch in Loader(lazy.train, 10)]
    ranks = [Loader(lazy.train, 10, rank=rank, world=2) for rank in range(2)]
    for batch, first, second in zip(alone, *ranks, strict=True):
        assert torch.equal(batch, torch.cat([first["features"], second["features"]]))


def test_an_epoch_reads_each_row_group_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_groups(tmp_path)
    reads: list[tuple[str, int]] = []
    read_group = row_groups._read_group

    def counted(path: Path, group: int, names: list[str]) -> Any:
        reads.append((path.name, group))
        return read_group(path, group, names)

    monkeypatch.setattr(row_groups, "_read_group", counted)
    lazy = parquet("part-*.parquet", {"features": "x"}, base=tmp_path, in_memory=False)
    reads.clear()
    assert len(list(Loader(lazy.train, 10))) == 8
    assert len(reads) == len(set(reads)) == 12


def assert_equal_batches(part: Samples, expected: Samples) -> None:
    """Check that two data sets have the same batch of random rows."""
    rows = torch.randperm(len(expected), generator=torch.Generator().manual_seed(0))
    batch, other = part.__getitems__(rows), expected.__getitems__(rows)
    assert batch.keys() == other.keys()
    for key, value in other.items():
        assert torch.equal(batch[key], value), key
    assert torch.equal(part.has_label, expected.has_label)


@pytest.mark.parametrize("kind", ["sequence", "boxes"])
def test_labels_with_a_length_are_read_by_row_group(tmp_path: Path, kind: str) -> None:
    label = [list(range(row % 4)) for row in range(60)]
    box = [[[0.0, 0.0, 1.0 + row, 2.0]] * (row % 4) for row in range(60)]
    image = [[[row / 60] * 4] * 4 for row in range(60)]
    write_groups(tmp_path, x=image, y=label, edges=box)
    columns = {"image": "x", "label": "y"} | ({"box": "edges"} if kind == "boxes" else {})
    whole, lazy = (
        parquet("part-*.parquet", columns, base=tmp_path, in_memory=in_memory)
        for in_memory in (True, False)
    )
    assert (lazy.kind, lazy.classes) == (whole.kind, whole.classes) == (kind, ("0", "1", "2"))
    for name in ("train", "validation", "test"):
        assert_equal_batches(getattr(lazy, name), getattr(whole, name))
    few = torch.tensor([2, 5, 7])
    assert_equal_batches(lazy.train.keep_labels(few), whole.train.keep_labels(few))
    assert_equal_batches(lazy.train.subset(few), whole.train.subset(few))
    hidden = torch.full_like(whole.train.label, UNLABELLED)
    assert_equal_batches(lazy.train.relabel(hidden), whole.train.relabel(hidden))
    is_boxes = lazy.train.augmentation is BoxAugmentation
    assert is_boxes == (kind == "boxes")


def test_sequences_by_row_group_have_their_length_in_every_batch(tmp_path: Path) -> None:
    write_groups(tmp_path, x=[[0.5] * (1 + row % 3) for row in range(60)])
    lazy = parquet("part-*.parquet", {"wave": "x", "label": "y"}, base=tmp_path, in_memory=False)
    batch = lazy.train.__getitems__([0])
    assert batch["wave_length"].tolist() == [batch["wave"].shape[1]]


def test_what_row_groups_cannot_be(tmp_path: Path) -> None:
    write_groups(tmp_path, x=[[1.0]] * 59 + [None])
    lazy = parquet("part-0.parquet", {"features": "x"}, base=tmp_path, in_memory=False)
    with pytest.raises(ValueError, match=r"part-0\.parquet: column 'x': row \d+ has no value"):
        list(Loader(lazy.train, 43, workers=1))
    with pytest.raises(ValueError, match="has no column 'z'"):
        parquet("part-0.parquet", {"features": "z"}, base=tmp_path, in_memory=False)
