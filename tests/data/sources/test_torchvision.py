import gzip
import struct

import numpy as np
import pytest
import torch

from instil.data.images import ArrayData
from instil.data.sources.torchvision import torchvision

pytest.importorskip("torchvision")


def fake(**more):
    return torchvision(
        "FakeData", options={"size": 40, "image_size": (3, 10, 12), "num_classes": 4}, **more
    )


def test_a_data_set_without_parts_is_divided():
    splits = fake(test=0.25, validation=0.1)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (27, 3, 10)
    assert splits.classes == ("0", "1", "2", "3")
    assert splits.train.shape == (3, 10, 12)
    assert fake(size=6, channels=1).train.shape == (1, 6, 6)


def test_pictures_and_labels_belong_together():
    from torchvision.datasets import FakeData

    reference = FakeData(40, (3, 10, 12), 4)
    originals = {
        np.asarray(image).tobytes(): int(label)
        for image, label in (reference[row] for row in range(40))
    }
    splits = fake()
    batch = splits.train.__getitems__(range(len(splits.train)))
    for image, label in zip(batch["image"], batch["label"], strict=True):
        assert (
            originals[
                (image * 255)
                .round()
                .to(torch.uint8)
                .permute(1, 2, 0)
                .contiguous()
                .numpy()
                .tobytes()
            ]
            == label
        )


def test_mnist_files_stay_in_memory_with_their_own_test_set(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 20)):
        pixels, label = (
            random.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            (np.arange(count) % 10).astype(np.uint8),
        )
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes()
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, count) + label.tobytes()
        )
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(b""))
    splits = torchvision("MNIST", base=tmp_path, validation=1 / 3)
    assert isinstance(splits.train, ArrayData)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 10, 20)
    assert splits.train.shape == (1, 28, 28)
    assert len(splits.classes) == 10


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"no 'CIFAR1'\. Did you mean CIFAR1"):
        torchvision("CIFAR1")
    with pytest.raises(ValueError, match=r"CIFAR10 is not in .*set download: true"):
        torchvision("CIFAR10", base=tmp_path)
    with pytest.raises(ValueError, match=r"^options.sise: .*Did you mean size"):
        torchvision("FakeData", options={"sise": 3})
    assert not list(tmp_path.iterdir())
