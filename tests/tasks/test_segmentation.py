"""Segmentation: the call; metrics compared with loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from instil.core import Net
from instil.tasks.segmentation import Segmentation, call
from instil.teachers.frozen import Frozen
from tests.tasks.samples import PixelProbe, pixels


def fixed_net(logits: torch.Tensor) -> Net:
    return Net(nn.Identity(), lambda _, batch: {"logits": logits[batch["index"]]})


def evaluate(
    logits: torch.Tensor, label: torch.Tensor, valid: torch.Tensor, teacher: Any = None
) -> tuple[dict[str, float], dict[str, Any]]:
    batch = {
        "image": torch.rand(len(label), 1, 2, 3),
        "label": label,
        "valid": valid,
        "index": torch.arange(len(label)),
    }
    pieces = [
        {key: value[:2] for key, value in batch.items()},
        {key: value[2:] for key, value in batch.items()},
    ]
    return Segmentation().evaluate(fixed_net(logits), pieces, teacher)


def test_metrics_equal_loops_over_all_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, label = (
        torch.randn(5, 2, 3, 4, generator=generator),
        torch.randint(0, 3, (5, 2, 3), generator=generator),
    )
    label[0, 0], valid = -100, torch.rand(5, 2, 3, generator=generator) > 0.2
    metrics, details = evaluate(logits, label, valid)
    counted = [
        (int(guess), int(true))
        for guess, true, ok in zip(
            logits.argmax(-1).flatten(), label.flatten(), valid.flatten(), strict=True
        )
        if ok
    ]
    counted = [(guess, true) for guess, true in counted if true != -100]
    overlaps = []
    for index in range(4):
        both = sum(guess == true == index for guess, true in counted)
        either = sum(index in pair for pair in counted)
        overlaps += [both / either] if either else []
    assert metrics["miou"] == pytest.approx(sum(overlaps) / len(overlaps), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(
        sum(guess == true for guess, true in counted) / len(counted)
    )
    keep = valid & (label != -100)
    assert metrics["loss"] == pytest.approx(
        F.cross_entropy(logits[keep], label[keep]).item(), rel=1e-5
    )
    assert sum(map(sum, details["confusion"])) == len(counted)
    assert details["confusion"][1][2] == counted.count((2, 1))
    assert "agreement" not in metrics


def test_an_absent_class_does_not_count() -> None:
    label = torch.tensor([[[0, 0, 1], [1, 1, 1]]] * 3)
    metrics, _ = evaluate(
        5 * F.one_hot(label, 4).float(), label, torch.ones_like(label, dtype=torch.bool)
    )
    assert metrics["miou"] == 1


def test_agreement_is_over_all_valid_pixels() -> None:
    label, valid = torch.full((4, 2, 3), -100), torch.ones(4, 2, 3, dtype=torch.bool)
    label[0, 0, 0], valid[:, 1] = 1, False
    logits, others = torch.zeros(4, 2, 3, 2), torch.zeros(4, 2, 3, 2)
    logits[..., 0], others[..., 0] = 1, 1
    others[0, 0, :, 1] = 2
    metrics, _ = evaluate(logits, label, valid, Frozen(fixed_net(others)))
    assert metrics["agreement"] == pytest.approx(9 / 12)


def test_data_without_labels_and_infinite_outputs_raise() -> None:
    label, valid = torch.full((3, 2, 3), -100), torch.ones(3, 2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="no pixel to evaluate on has a label"):
        evaluate(torch.zeros(3, 2, 3, 2), label, valid)
    with pytest.raises(ValueError, match="2 of 12 pixels have logits that are not finite"):
        evaluate(
            torch.zeros(3, 2, 3, 2)
            .index_fill_(3, torch.tensor(1), 0)
            .masked_fill(torch.arange(6).reshape(1, 2, 3, 1) == 4, float("nan")),
            label,
            valid,
        )


def test_the_call_returns_channel_last_logits_of_the_image_size() -> None:
    model = PixelProbe().eval()
    image = torch.rand(2, 1, 8, 6)
    logits = call(model, {"image": image})["logits"]
    assert logits.shape == (2, 8, 6, 3)
    torch.testing.assert_close(logits[1, 4, 2], model(image)[1, :, 4, 2])
    assert call(model, {"image": image}, size=(4, 4), mean=(0.5,), std=(2.0,))["logits"].shape == (
        2,
        8,
        6,
        3,
    )


def test_a_model_without_an_output_for_each_pixel_is_named() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    with pytest.raises(ValueError, match=r"Expected \(N, C, height, width\), got the shape \(2, 3"):
        call(model, {"image": torch.rand(2, 1, 8, 6)})


def test_outputs_of_torchvision_and_transformers() -> None:
    class NamedOutput(nn.Module):
        def __init__(self, role: str) -> None:
            super().__init__()
            self.role = role

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            return {self.role: image[..., ::2, ::2].repeat(1, 5, 1, 1)}

    for role in ("out", "logits"):
        assert call(NamedOutput(role), {"image": torch.rand(2, 1, 8, 8)})["logits"].shape == (
            2,
            8,
            8,
            5,
        )


def test_data_of_other_tasks_raise() -> None:
    with pytest.raises(
        ValueError,
        match=r"needs a label and valid \(N, H, W\) for each pixel; the label has the shape "
        r"\(12,\)",
    ):
        Segmentation().check_data(pixels() | {"label": torch.zeros(12)})
    with pytest.raises(
        ValueError, match=r"segmentation needs 'image' in a batch\. Expected image, got input_ids"
    ):
        Segmentation().check_data({"input_ids": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="labels are single, not 'multi'"):
        Segmentation("multi")


@pytest.mark.parametrize(("num_classes", "dtype"), [(256, torch.uint8), (257, torch.int32)])
def test_decisions_are_small_class_indices_of_the_pixels(
    num_classes: int, dtype: torch.dtype
) -> None:
    logits = torch.randn(2, 3, 4, num_classes, generator=torch.Generator().manual_seed(0))
    # The last class must not wrap around.
    logits[0, 0, 0, -1] = 100
    decisions = Segmentation().decisions({"logits": logits})
    assert decisions["prediction"].dtype == dtype
    assert torch.equal(decisions["prediction"].long(), logits.argmax(-1))
    assert set(decisions) == set(Segmentation.decision_roles)


def test_pseudo_labels_fill_unlabelled_pixels_only() -> None:
    label = torch.tensor([[[2, -100], [-100, 0]]])
    outputs = {"prediction": torch.tensor([[[1, 1], [3, 3]]], dtype=torch.uint8)}
    filled = Segmentation().pseudo_labels(outputs, label)
    assert filled.dtype == torch.int64
    assert filled.tolist() == [[[2, 1], [3, 0]]]
