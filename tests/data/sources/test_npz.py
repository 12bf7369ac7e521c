import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from instil.data import archive
from instil.data.sources.npz import channels_first, npz


def saved(folder: Path, **arrays) -> str:
    np.savez(folder / "data.npz", **arrays)
    return "data.npz"


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


LABEL = np.arange(40) % 4


@pytest.mark.parametrize("names", [("image", "label"), ("images", "labels"), ("x", "y")])
def test_names_layouts_and_splits(tmp_path, names):
    image = pixels(40, 6, 5, 3)
    split = np.array([0] * 20 + [1] * 8 + [2] * 12)
    path = saved(
        tmp_path,
        **{names[0]: image, names[1]: LABEL},
        split=split,
        classes=np.array(["a", "b", "c", "d"]),
    )
    splits = npz(path, base=tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 8, 12)
    assert splits.classes == ("a", "b", "c", "d")
    batch = splits.test.__getitems__([3])
    torch.testing.assert_close(
        batch["image"][0], torch.from_numpy(image[31]).permute(2, 0, 1) / 255
    )
    assert batch["label"].tolist() == [3]
    assert batch["index"].tolist() == [3]


def test_without_split_shares_are_held_out(tmp_path):
    splits = npz(
        saved(tmp_path, image=pixels(40, 6, 6), label=LABEL),
        validation=0.25,
        test=0.5,
        base=tmp_path,
    )
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (15, 5, 20)
    assert splits.classes == ("0", "1", "2", "3")
    assert splits.train.shape == (1, 6, 6)


def test_labels_of_several_classes(tmp_path):
    splits = npz(saved(tmp_path, image=pixels(40, 6, 6), label=np.eye(4)[LABEL]), base=tmp_path)
    assert splits.kind == "multi"
    assert splits.train.label.shape[1] == 4


def test_the_path_is_also_looked_for_where_the_command_runs(tmp_path, monkeypatch):
    saved(tmp_path, image=pixels(40, 6, 6), label=LABEL)
    monkeypatch.chdir(tmp_path)
    assert len(npz("data.npz", base=tmp_path / "elsewhere").classes) == 4


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 8, 9), (5, 1, 8, 9)),
        ((5, 8, 9, 3), (5, 3, 8, 9)),
        ((5, 3, 8, 9), (5, 3, 8, 9)),
        ((5, 10, 8, 9), (5, 10, 8, 9)),
        ((5, 1, 8, 3), (5, 1, 8, 3)),
    ],
)
def test_layouts(shape, expected):
    assert channels_first(np.zeros(shape)).shape == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"imagse": pixels(40, 6, 6), "label": LABEL},
            r"no array 'image' \(or images, x\); the file has imagse \(40, 6, 6\), label "
            r"\(40,\)\. Did you mean imagse",
        ),
        ({"image": pixels(40, 6, 6)}, "no array 'label'"),
        ({"image": pixels(40, 6, 6), "label": LABEL[:39]}, "39 labels for 40 images"),
        (
            {"image": pixels(40, 6, 6), "label": LABEL, "classes": np.array(["a", "b"])},
            "none of the 2 classes",
        ),
        ({"image": np.full((40, 6, 6), np.nan, np.float32), "label": LABEL}, "image 0 is not"),
        ({"image": pixels(40, 6, 6), "label": LABEL, "split": LABEL}, "'split' must hold 0"),
        (
            {"image": pixels(40, 6, 6), "label": LABEL, "split": np.full(40, 2)},
            "no train set, only test",
        ),
        ({"image": pixels(0, 6, 6), "label": LABEL[:0]}, "train set has no images"),
        ({"image": pixels(40, 6), "label": LABEL}, "shape"),
        (
            {"image": pixels(40, 6, 6), "label": np.array([["a"]] * 40)},
            "class names have the shape",
        ),
        ({"image": np.array([{}] * 40), "label": LABEL}, "plain arrays"),
    ],
)
def test_bad_archives(tmp_path, arrays, message):
    path = saved(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        npz(path, base=tmp_path)
    assert "data.npz" in str(error.value)


def test_missing_and_broken_files(tmp_path):
    saved(tmp_path, image=pixels(4, 2, 2))
    with pytest.raises(ValueError, match=r"no 'data.npy' in .*Did you mean data.npz"):
        npz("data.npy", base=tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", pixels(3))
    for name in ("broken.npz", "text.npz", "one.npy"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            npz(name, base=tmp_path)


def _header_claims(shape, size=100):
    """Array file with a shape in its header and a number of bytes behind it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue() + bytes(size)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (_header_claims((2**46,)), "claims the shape"),
        (_header_claims((2**62, 2**62)), "claims the shape"),
        (_header_claims((-10, -10)), "claims the shape"),
        (_header_claims((99,)), "claims the shape"),
        (b"\x93NUMPY\x03\x00" + bytes(100), "unknown format"),
        (b"not numpy at all", "plain arrays"),
        (b"", "plain arrays"),
    ],
)
def test_a_header_is_not_believed(tmp_path, image, message):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("image.npy", image)
    with pytest.raises(ValueError, match=message) as caught:
        npz(str(tmp_path / "a.npz"))
    assert "a.npz cannot be read as a .npz archive of plain arrays" in str(caught.value)


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "ALWAYS_ALLOWED", 2**20)
    np.savez_compressed(tmp_path / "a.npz", image=np.zeros((2**14, 2**10), np.uint8))
    with pytest.raises(ValueError, match=r"claim to unpack to 16777\d+, more than 200 times"):
        npz(str(tmp_path / "a.npz"))


def test_a_damaged_archive_is_named(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", image=pixels(40, 6, 6), label=LABEL)
    content = (tmp_path / "good.npz").read_bytes()
    messages = []
    for position in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            npz(str(tmp_path / "a.npz"))
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > len(content) // 5 * 0.8
    assert all("a.npz" in message for message in messages)
