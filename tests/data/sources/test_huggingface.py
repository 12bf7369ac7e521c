import numpy as np
import pytest

from instil.data.sources.huggingface import huggingface

datasets = pytest.importorskip("datasets")


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def rows(count: int, label, **columns):
    image = [np.full((4, 6, 3), row, np.uint8) for row in range(count)]
    kinds = {"img": datasets.Image(), "label": label} | {
        name: kind for name, (kind, _) in columns.items()
    }
    values = {"img": image, "label": [row % 2 for row in range(count)]} | {
        name: value for name, (_, value) in columns.items()
    }
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


def test_a_saved_data_set_with_splits(tmp_path):
    kind = datasets.ClassLabel(names=["no", "yes"])
    datasets.DatasetDict({"train": rows(20, kind), "test": rows(6, kind)}).save_to_disk(
        str(tmp_path / "saved")
    )
    splits = huggingface("saved", validation=0.2, base=tmp_path)
    assert splits.classes == ("no", "yes")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 6)
    batch = splits.test.__getitems__([3])
    assert batch["image"].shape == (1, 3, 4, 6)
    assert float(batch["image"].mean()) == pytest.approx(3 / 255)
    assert batch["label"].tolist() == [1]
    assert huggingface("saved", size=3, channels=1, base=tmp_path).train.shape == (1, 3, 3)


def test_lists_of_classes_are_many_labels_and_minus_one_is_none(tmp_path):
    names = datasets.ClassLabel(names=["a", "b", "c"])
    many = rows(
        8, datasets.Value("int64"), tags=(datasets.Sequence(names), [[0, 2], [], [1]] + [[1]] * 5)
    )
    many.save_to_disk(str(tmp_path / "many"))
    splits = huggingface("many", label="tags", test=0.25, validation=0.25, base=tmp_path)
    assert splits.kind == "multi"
    assert splits.classes == ("a", "b", "c")
    assert sum(part.label.sum() for part in (splits.train, splits.validation, splits.test)) == 8
    hidden = rows(4, names).map(lambda row: {"label": -1})
    datasets.DatasetDict(
        {"train": rows(8, names), "validation": rows(4, names), "test": hidden}
    ).save_to_disk(str(tmp_path / "hidden"))
    assert huggingface("hidden", base=tmp_path).test.label.tolist() == [-100] * 4


def test_unclear_columns_are_listed(tmp_path):
    names = datasets.ClassLabel(names=["a", "b"])
    plain = datasets.Dataset.from_dict({"text": ["x"]})
    plain.save_to_disk(str(tmp_path / "text"))
    with pytest.raises(
        ValueError,
        match=r"no column is the image\. Name the column with `image`; the columns are text",
    ):
        huggingface("text", base=tmp_path)
    two = rows(8, names, other=(datasets.Image(), [np.zeros((2, 2, 3), np.uint8)] * 8))
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(ValueError, match=r"several columns could be the image \(img, other\)"):
        huggingface("two", base=tmp_path)
    with pytest.raises(ValueError, match=r"no column 'imgs'\. Did you mean img"):
        huggingface("two", image="imgs", base=tmp_path)
    datasets.DatasetDict({"dev": rows(2, names)}).save_to_disk(str(tmp_path / "dev"))
    with pytest.raises(ValueError, match="no train split, only dev"):
        huggingface("dev", base=tmp_path)


def test_a_data_set_that_is_nowhere(tmp_path, offline):
    with pytest.raises(
        ValueError, match=r"'no_such_data' is not a data set in .* cannot be loaded from the hub"
    ):
        huggingface("no_such_data", base=tmp_path)
