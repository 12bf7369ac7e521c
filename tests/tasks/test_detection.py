"""Detection: metrics compared with loops over pixels; errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Net
from instil.functional.boxes import box_iou
from instil.tasks.detection import Detection, call, expected_boxes
from instil.teachers.frozen import Frozen
from tests.tasks.samples import BoxProbe, boxed_images, images


def fixed_net(logits: Tensor, box_logits: Tensor) -> Net:
    return Net(
        nn.Identity(),
        lambda _, batch: {
            "logits": logits[batch["index"]],
            "box_logits": box_logits[batch["index"]],
        },
    )


def evaluate(
    logits: Tensor, box_logits: Tensor, label: Tensor, box: Tensor, teacher: Any = None
) -> dict[str, float]:
    batch = {
        "image": torch.rand(len(label), 1, 2, 2),
        "label": label,
        "box": box,
        "index": torch.arange(len(label)),
    }
    pieces = [
        {key: value[:3] for key, value in batch.items()},
        {key: value[3:] for key, value in batch.items()},
    ]
    return Detection().evaluate(fixed_net(logits, box_logits), pieces, teacher)[0]


def pixels(box: list[float]) -> set[tuple[int, int]]:
    left, top, right, bottom = (int(edge) for edge in box)
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


def sharp_logits(box: Tensor, bins: int = 7) -> Tensor:
    return 50 * F.one_hot(box.long(), bins).float().flatten(1)


def test_box_iou_equals_a_count_of_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, 7, (200, 4), generator=generator).float() for _ in range(2))
    for box in (one, other):  # every fourth box stays unsorted and may end before it begins
        box[torch.arange(200) % 4 > 0] = (
            box[torch.arange(200) % 4 > 0].view(-1, 2, 2).sort(1).values.flatten(1)
        )
    for a, b, value in zip(one.tolist(), other.tolist(), box_iou(one, other).tolist(), strict=True):
        either = len(pixels(a) | pixels(b))
        assert value == pytest.approx(len(pixels(a) & pixels(b)) / either if either else 0)
    assert (box_iou(one, other) > 0).sum() > 20


def test_an_expected_edge_is_the_mean_of_its_distribution() -> None:
    probability = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 1], [0.25] * 4, [0, 0.2, 0.8, 0]])
    torch.testing.assert_close(
        expected_boxes(probability.clamp_min(1e-30).log().flatten()[None]),
        torch.tensor([[0.5, 3.0, 1.5, 1.8]]),
    )


def test_metrics_count_labelled_items_only() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    label = logits.argmax(1)
    label[1], label[2] = -100, (label[2] + 1) % 3
    box = torch.tensor(
        [[0.0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3], [2, 2, 6, 6], [0, 0, 4, 4], [-100, 0, 2, 2]]
    )
    guess = torch.tensor(
        [[0.0, 0, 2, 2], [0, 0, 6, 6], [1, 1, 3, 3], [2, 2, 6, 4], [3, 3, 5, 5], [0, 0, 1, 1]]
    )
    metrics = evaluate(
        logits,
        sharp_logits(guess),
        label,
        box,
        Frozen(fixed_net(logits.roll(1, 0), sharp_logits(guess))),
    )
    assert metrics["iou"] == pytest.approx((1 + 1 + 0.5 + 1 / 19) / 4)
    assert metrics["found"] == pytest.approx(2 / 4)
    assert metrics["accuracy"] == pytest.approx(4 / 5)
    assert metrics["agreement"] == pytest.approx(
        float((logits.argmax(1) == logits.roll(1, 0).argmax(1)).double().mean())
    )


def test_data_without_labels_and_infinite_outputs_raise() -> None:
    logits, label, box = torch.zeros(6, 3), torch.zeros(6, dtype=torch.int64), torch.zeros(6, 4)
    with pytest.raises(ValueError, match="no sample to evaluate on has a box"):
        evaluate(logits, sharp_logits(box), label, torch.full((6, 4), -100.0))
    with pytest.raises(ValueError, match="1 of 6 samples have box logits that are not finite"):
        evaluate(logits, sharp_logits(box).index_fill_(0, torch.tensor(2), torch.nan), label, box)


def test_the_call_accepts_tuples_and_dicts() -> None:
    class Named(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            logits, box_logits = probe(image)
            return {"logits": logits, "box_logits": box_logits}

    probe = BoxProbe().eval()
    one, two = call(probe, boxed_images()), call(Named(), boxed_images())
    assert one["box_logits"].shape == (12, 24)
    assert all(torch.equal(one[role], two[role]) for role in ("logits", "box_logits"))
    assert call(probe, {"image": torch.rand(2, 1, 8, 8)}, size=4)["logits"].shape == (2, 4)


def test_a_model_without_boxes_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(
        ValueError, match=r"the model does not detect objects.*got the shape \(2, 3\)"
    ):
        call(model, {"image": torch.rand(2, 1, 8, 8)})


def test_data_of_other_tasks_raise() -> None:
    for batch in (images(), boxed_images() | {"box": torch.zeros(12, 2)}):
        with pytest.raises(
            ValueError,
            match=r"detection needs a label \(N,\) and a box \(N, 4\); this batch has image, label",
        ):
            Detection().check_data(batch)
