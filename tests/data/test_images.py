import pytest
import torch

from instil.data.images import ArrayData, LazyData

CLASSES = ("cat", "dog", "owl")


def grey(count: int = 6) -> torch.Tensor:
    return torch.arange(count * 4, dtype=torch.uint8).reshape(count, 1, 2, 2)


def test_a_batch_holds_scaled_images_labels_and_identity():
    data = ArrayData(grey() * 10, torch.tensor([0, 1, 2, 0, 1, -100]), CLASSES)
    batch = data.__getitems__([5, 1])
    assert list(batch) == ["image", "label", "index", "view"]
    assert batch["image"].dtype == torch.float32
    torch.testing.assert_close(
        batch["image"][1], torch.tensor([[[40.0, 50.0], [60.0, 70.0]]]) / 255
    )
    assert batch["label"].tolist() == [-100, 1]
    assert batch["index"].tolist() == [5, 1]
    assert batch["view"].tolist() == [0, 0]
    assert data.shape == (1, 2, 2)


def test_the_batch_is_a_copy():
    data = ArrayData(torch.rand(4, 1, 2, 2), torch.zeros(4), CLASSES)
    before = data.image.clone()
    data.__getitems__([0, 1])["image"].zero_()
    assert torch.equal(data.image, before)


def test_a_subset_keeps_index_and_a_relabelled_set_keeps_images():
    data = ArrayData(grey(), torch.tensor([0, 1, 2, 0, 1, 2]), CLASSES)
    part = data.subset([4, 2])
    assert part.__getitems__([0])["index"].tolist() == [4]
    assert torch.equal(part.image, data.image[[4, 2]])
    assert part.subset([1]).index.tolist() == [2]
    other = data.relabel(torch.full((6,), 2))
    assert data.label.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(other.__getitems__(range(6))["image"], data.__getitems__(range(6))["image"])


def test_lazy_images_are_read_on_access():
    read: list[int] = []

    def picture(row: int):
        read.append(row)
        return grey()[row, 0].numpy()

    data = LazyData(picture, torch.tensor([0, 1, 2, 0, 1, 2]), CLASSES).subset([3, 5])
    assert read == []
    batch = data.__getitems__([1])
    assert read == [5]
    torch.testing.assert_close(batch["image"], grey()[5:6] / 255)
    assert batch["index"].tolist() == [5]


def test_lazy_images_of_different_size_are_named():
    data = LazyData(
        lambda row: torch.zeros(2 + row, 2, 3, dtype=torch.uint8).numpy(), torch.zeros(2), CLASSES
    )
    message = r"data.size: .* differ in shape.*\(3, 2, 2\) and \(3, 3, 2\)"
    with pytest.raises(ValueError, match=message):
        data.__getitems__([0, 1])


@pytest.mark.parametrize(
    ("label", "kind"),
    [(torch.tensor([0, 2]), "single"), (torch.tensor([[0, 1, 1], [0, 0, 0]]), "multi")],
)
def test_the_kind_follows_from_the_labels(label, kind):
    assert ArrayData(grey(2), label, CLASSES).kind == kind


def test_yes_or_no():
    data = ArrayData(grey(2), torch.tensor([[1], [0]]), ["defect"])
    assert data.kind == "binary"
    assert data.label.dtype == torch.float32


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2), r"shape \(N, C, H, W\)"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(3), "3 labels for 2 images"),
        (
            torch.zeros(2, 1, 3, 3),
            torch.tensor([0, 3]),
            "label 3 of image 1 is none of the 3 classes",
        ),
        (torch.zeros(2, 1, 3, 3), torch.tensor([-1, 0]), "label -1 of image 0"),
        (torch.zeros(2, 1, 3, 3), torch.tensor([0.5, 0]), "must be whole"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(2, 4), r"\(N, 3\)"),
        (torch.zeros(2, 1, 3, 3), torch.tensor([[0, 1, 0], [0, 2, 0]]), "image 1"),
        (torch.full((2, 1, 3, 3), 255.0), torch.zeros(2), r"in \[0, 1\], these go from 255 to 255"),
        (torch.tensor([0.0, torch.nan]).reshape(2, 1, 1, 1), torch.zeros(2), "image 1 is not"),
        (
            torch.zeros(2, 1, 3, 3, dtype=torch.int64),
            torch.zeros(2),
            "uint8 or floating point, not int64",
        ),
    ],
)
def test_what_does_not_fit_is_named(image, label, message):
    with pytest.raises(ValueError, match=message):
        ArrayData(image, label, CLASSES)


def test_an_empty_set_has_no_shape():
    with pytest.raises(ValueError, match="empty"):
        _ = ArrayData(grey(0), torch.zeros(0), CLASSES).shape
