import hashlib

import pytest
import torch

from instil.data.sources.digits import digits


def test_sizes_classes_and_kind():
    splits = digits()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1000, 297, 500)
    assert splits.classes == tuple("0123456789")
    assert splits.kind == "single"
    assert splits.train.shape == (1, 8, 8)
    image = splits.train.__getitems__(range(1000))["image"]
    assert (image.min(), image.max()) == (0, 1)


def test_no_image_is_in_two_sets_and_none_is_lost():
    splits = digits()
    parts = [
        (part.image * 16).to(torch.uint8).flatten(1)
        for part in (splits.train, splits.validation, splits.test)
    ]
    rows = [{bytes(row.tolist()) for row in part} for part in parts]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]
    assert sum(map(len, rows)) == 1797


def test_every_set_has_every_class_in_proportion():
    splits = digits()
    shares = [
        part.label.bincount(minlength=10) / len(part)
        for part in (splits.train, splits.validation, splits.test)
    ]
    for share in shares[1:]:
        assert (share - shares[0]).abs().max() < 0.006


def test_the_split_is_the_published_one():
    splits = digits()
    pixels = torch.cat([part.image for part in (splits.train, splits.validation, splits.test)]) * 16
    digest = hashlib.sha256(pixels.to(torch.uint8).numpy().tobytes())
    assert digest.hexdigest()[:16] == "136c904b2aaf2719"


def test_the_pixels_are_those_of_scikit_learn():
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    splits = digits()
    originals = {
        (bytes(image.astype("uint8").tobytes()), int(label))
        for image, label in zip(reference.images, reference.target, strict=True)
    }
    for part in (splits.train, splits.validation, splits.test):
        pixels = (part.image * 16).to(torch.uint8).flatten(1)
        assert {
            (bytes(row.tolist()), int(label)) for row, label in zip(pixels, part.label, strict=True)
        } <= originals
