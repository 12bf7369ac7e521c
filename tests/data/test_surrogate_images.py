"""Synthetic images, and images of other data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digits
from instil.data.surrogate_images import ForeignImages, ImageSource, SyntheticImages
from instil.data.surrogates.blank import Placeholder
from instil.data.surrogates.blobs import Blobs
from instil.data.surrogates.noise import Noise


def moment(size: int = 50, view: int = 0) -> Batch:
    return {"index": torch.arange(size), "view": torch.full((size,), view)}


def surrogate_images(maker: ImageSource, view: int = 0, seed: int = 0) -> Tensor:
    samples = SyntheticImages(digits().validation, 100, maker)
    batch = samples.__getitems__(list(range(50))) | moment(view=view)
    image: Tensor = samples.materialize(batch, seed)["image"]
    return image


@pytest.mark.parametrize("maker", [Noise(), Blobs(), Blobs(2)])
def test_surrogate_images_depend_on_sample_view_and_seed_only(maker: ImageSource) -> None:
    image = surrogate_images(maker)
    assert image.shape == (50, 1, 8, 8)
    assert image.dtype == torch.float32
    assert 0 <= float(image.min()) < 0.2
    assert 0.8 < float(image.max()) <= 1
    assert len(torch.unique(image, dim=0)) == 50
    assert torch.equal(image, surrogate_images(maker))
    for other in (surrogate_images(maker, view=1), surrogate_images(maker, seed=1)):
        assert not (other == image).flatten(1).all(1).any()


def test_noise_is_even_and_blobs_are_smooth() -> None:
    noise, coarse, fine = (surrogate_images(maker) for maker in (Noise(), Blobs(2), Blobs(7)))
    assert torch.allclose(
        torch.histc(noise, 5, 0, 1) / noise.numel(), torch.full((5,), 0.2), atol=0.03
    )

    def rough(image: Tensor) -> float:
        return float((image[..., 1:] - image[..., :-1]).abs().mean() / image.std())

    assert rough(coarse) < rough(fine) < rough(noise)
    assert float((fine < 0.5).float().mean()) > 0.6, "bright on a dark ground"


def test_blobs_have_equal_width_and_height() -> None:
    like = ArrayData(torch.rand(4, 3, 16, 8), torch.zeros(4, dtype=torch.int64), ["a"])
    samples = SyntheticImages(like, 10, Blobs(4))
    image = samples.materialize(samples.__getitems__([0, 1]) | moment(2), 0)["image"]
    assert image.shape == (2, 3, 16, 8)
    assert len(samples) == 10


def test_blank_is_black_and_nothing_has_a_label() -> None:
    assert not surrogate_images(Placeholder()).any()
    samples = SyntheticImages(digits().validation, 100, Placeholder())
    batch = samples.__getitems__([3, 99])
    assert batch["label"].tolist() == [UNLABELLED, UNLABELLED]
    assert samples.classes == digits().classes
    assert samples.kind == "single"
    assert samples.facts == digits().validation.facts


def test_borrowed_images_take_size_and_colours_of_the_datas() -> None:
    colours = torch.rand(6, 3, 32, 16)
    borrowed = ForeignImages(
        digits().validation, ArrayData(colours, torch.zeros(6, dtype=torch.int64), ["a"])
    )
    batch = borrowed.__getitems__([1, 5])
    assert batch["image"].shape == (2, 1, 8, 8)
    assert torch.allclose(
        batch["image"].mean((1, 2, 3)), colours[[1, 5]].mean((1, 2, 3)), atol=0.02
    )
    assert batch["label"].tolist() == [UNLABELLED, UNLABELLED]
    part = borrowed.subset(torch.tensor([5]))
    assert torch.equal(part.__getitems__([0])["image"], batch["image"][1:])
    back = ForeignImages(
        ArrayData(colours, torch.zeros(6, dtype=torch.int64), ["a"]), digits().train
    ).__getitems__([0])["image"]
    assert back.shape == (1, 3, 32, 16)
    assert torch.equal(back[:, 0], back[:, 2])


def test_only_image_shapes_are_supported() -> None:
    rows = TensorData({"x": torch.zeros(4, 3)}, torch.zeros(4, dtype=torch.int64), ["a"])
    with pytest.raises(ValueError, match="Expected images"):
        SyntheticImages(rows, 4, Noise())
