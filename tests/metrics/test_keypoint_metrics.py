"""Average precision and recall of keypoints against formulas of their own and pycocotools."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Net
from instil.metrics.keypoint_average_precision import KeypointAveragePrecision
from instil.metrics.keypoint_average_recall import KeypointAverageRecall
from instil.tasks.pose import Pose
from tests.metrics.test_metrics import value_of

SIGMAS = [0.05, 0.1, 0.2]
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]


def samples(num_samples: int = 24, num_keypoints: int = 3) -> tuple[dict[str, Any], Batch]:
    """Return outputs near the labels, and a batch with unknown and invalid keypoints."""
    generator = torch.Generator().manual_seed(3)
    label = 10 + 40 * torch.rand(num_samples, num_keypoints, 2, generator=generator)
    noise = torch.randn(label.shape, generator=generator)
    spread = 6 * torch.rand(num_samples, 1, 1, generator=generator)
    columns, rows = (
        3 * torch.randn(num_samples, num_keypoints, size, generator=generator) for size in (7, 9)
    )
    outputs = {"logits": label + spread * noise, "x_logits": columns, "y_logits": rows}
    label[::5, 1] = UNLABELLED
    label[2] = torch.nan
    valid = torch.rand(num_samples, num_keypoints, generator=generator) > 0.1
    area = 200 + 800 * torch.rand(num_samples, generator=generator)
    return outputs, {"label": label, "valid": valid, "area": area}


def similarity(row: int, positions: Tensor, batch: Batch) -> float | None:
    """Object keypoint similarity of a sample; None without a known keypoint."""
    values = []
    for index, sigma in enumerate(SIGMAS):
        target = batch["label"][row, index]
        if batch["valid"][row, index] and float(target[0]) >= 0:
            distance = math.dist(positions[row, index].tolist(), target.tolist())
            scale = 2 * float(batch["area"][row]) * (2 * sigma) ** 2
            values.append(math.exp(-(distance**2) / scale))
    return sum(values) / len(values) if values else None


def score(row: int, outputs: dict[str, Any]) -> float:
    """Mean over the keypoints of the smaller one of the two largest probabilities."""
    values = []
    for columns, rows in zip(outputs["x_logits"][row], outputs["y_logits"][row], strict=True):
        largest = [
            1 / sum(math.exp(value - max(logits)) for value in logits)
            for logits in (columns.tolist(), rows.tolist())
        ]
        values.append(min(largest))
    return sum(values) / len(values)


def precision_at(threshold: float, ranked: list[float]) -> float:
    """Mean of the interpolated precision over the recalls 0, 0.01, ..., 1."""
    hits = 0
    points = []
    for rank, value in enumerate(ranked, 1):
        hits += value >= threshold
        points.append((hits / len(ranked), hits / rank))
    total = 0.0
    for step in range(101):
        reached = [precision for recall, precision in points if recall >= step / 100 - 1e-12]
        total += max(reached, default=0.0)
    return total / 101


def test_one_object_per_image_equals_formulas() -> None:
    pytest.importorskip("pycocotools")
    outputs, batch = samples()
    scored = []
    for row in range(24):
        value = similarity(row, outputs["logits"], batch)
        if value is not None:
            scored.append((score(row, outputs), value))
    ranked = [value for _, value in sorted(scored, reverse=True)]
    assert len(ranked) < 24
    precisions = [precision_at(threshold, ranked) for threshold in THRESHOLDS]
    recalls = [
        sum(value >= threshold for value in ranked) / len(ranked) for threshold in THRESHOLDS
    ]
    assert 0.1 < sum(precisions) / 10 < 0.9
    parts = [
        (
            {key: value[rows] for key, value in outputs.items()},
            {k: v[rows] for k, v in batch.items()},
        )
        for rows in (slice(0, 9), slice(9, 24))
    ]
    precision = value_of(KeypointAveragePrecision(SIGMAS), *parts)
    assert precision == pytest.approx(sum(precisions) / 10, abs=1e-6)
    half = value_of(KeypointAveragePrecision(SIGMAS, [0.5]), *parts)
    assert half == pytest.approx(precisions[0], abs=1e-6)
    recall = value_of(KeypointAverageRecall(SIGMAS), *parts)
    assert recall == pytest.approx(sum(recalls) / 10, abs=1e-6)


def cropped() -> tuple[dict[str, Any], Batch]:
    """Return two crops of one picture: each pose lies on the object of the other crop."""
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 8.0]])
    truth = torch.stack([corners + 2, corners + 20])
    crop = torch.tensor([[0.0, 0.0, 16.0, 32.0], [10.0, 10.0, 26.0, 42.0]])
    origin = crop[:, None, :2]
    outputs = {
        "logits": (truth.flip(0) - origin) / 2,
        "x_logits": torch.zeros(2, 3, 8),
        "y_logits": torch.zeros(2, 3, 16),
    }
    batch = {
        "label": (truth - origin) / 2,
        "area": torch.full((2,), 32 / 4.0),
        "image_size": torch.tensor([[8.0, 16.0]]).expand(2, 2),
        "crop": crop,
    }
    return outputs, batch


def test_poses_match_the_objects_of_their_picture() -> None:
    pytest.importorskip("pycocotools")
    outputs, batch = cropped()
    alone = value_of(KeypointAveragePrecision(SIGMAS), (outputs, batch))
    assert alone == 0
    together = batch | {"picture": torch.tensor([7, 7])}
    assert value_of(KeypointAveragePrecision(SIGMAS), (outputs, together)) == pytest.approx(1)
    apart = batch | {"picture": torch.tensor([7, 8])}
    assert value_of(KeypointAverageRecall(SIGMAS), (outputs, apart)) == 0


def test_seventeen_keypoints_equal_pycocotools_in_the_pixels_of_the_pictures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    outputs, batch = samples(30, 17)
    batch = batch | {
        "image_size": torch.tensor([[64.0, 64.0]]).expand(30, 2),
        "crop": torch.tensor([[5.0, 3.0, 197.0, 195.0]]).expand(30, 4),
        "picture": torch.arange(30) // 4,
    }
    objects: list[dict[str, Any]] = []
    poses: list[dict[str, Any]] = []
    for row in range(30):
        visible = batch["valid"][row] & (batch["label"][row, :, 0] >= 0)
        truth = (3 * batch["label"][row] + torch.tensor([5.0, 3.0])).nan_to_num()
        guess = 3 * outputs["logits"][row] + torch.tensor([5.0, 3.0])
        entry = {"id": row + 1, "image_id": row // 4, "category_id": 1}
        keypoints = torch.cat([truth, 2.0 * visible[:, None]], 1).flatten().tolist()
        count = int(visible.sum())
        area = 9 * float(batch["area"][row])
        if count:
            objects.append(
                {**entry, "keypoints": keypoints, "num_keypoints": count, "area": area}
                | {"bbox": [0, 0, 9, 9], "iscrowd": 0}
            )
            keypoints = torch.cat([guess, torch.ones(17, 1)], 1).flatten().tolist()
            poses.append({**entry, "keypoints": keypoints, "score": score(row, outputs)})
    truth_api = COCO()
    truth_api.dataset = {
        "info": {},
        "images": [{"id": picture} for picture in range(8)],
        "categories": [{"id": 1}],
        "annotations": objects,
    }
    truth_api.createIndex()
    evaluation = COCOeval(truth_api, truth_api.loadRes(poses), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    capsys.readouterr()
    average, half, strict, _, _, recall = evaluation.stats[:6]
    assert 0.1 < average < half < 1
    for metric, expected in (
        (KeypointAveragePrecision(), average),
        (KeypointAveragePrecision(thresholds=[0.5]), half),
        (KeypointAveragePrecision(thresholds=[0.75]), strict),
        (KeypointAverageRecall(), recall),
    ):
        assert value_of(metric, (outputs, batch)) == pytest.approx(expected, abs=1e-6)
    assert capsys.readouterr().out == ""


def test_wrong_sigmas_and_areas_raise() -> None:
    outputs, batch = samples()
    for sigmas, message in (
        (None, r"sigmas: the data has 3 keypoints\. Expected 3 .* COCO's 17 keypoints"),
        ([0.1, 0.1], r"Expected 3 standard deviations, got 2"),
        ([0.1, 0.0, 0.1], r"sigmas: 0\.0 is not above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            value_of(KeypointAveragePrecision(sigmas), (outputs, batch))
    without = batch | {"area": torch.zeros(24)}
    with pytest.raises(ValueError, match=r"area: 23 of 24 objects have no area"):
        value_of(KeypointAverageRecall(SIGMAS), (outputs, without))
    with pytest.raises(ValueError, match="no object to evaluate on has a labelled keypoint"):
        value_of(KeypointAverageRecall(SIGMAS))


def test_the_task_computes_the_metrics_of_a_recipe() -> None:
    pytest.importorskip("pycocotools")
    outputs, batch = samples()
    batch = batch | {f"known {role}": value for role, value in outputs.items()}
    batch["image"] = torch.zeros(24, 1, 4, 4)
    net = Net(torch.nn.Identity(), lambda _, entries: {k: entries[f"known {k}"] for k in outputs})
    task = Pose()
    metrics = {"ap": KeypointAveragePrecision(SIGMAS), "ar": KeypointAverageRecall(SIGMAS)}
    task.add_metrics(metrics, "ap")
    task.check_metrics(net, batch)
    values, _ = task.measure(net, [batch])
    assert task.headline == "ap"
    assert task.higher_is_better
    assert 0 < values["ap"] <= values["ar"] < 1
    del batch["area"]
    with pytest.raises(ValueError, match=r"metrics\.ap: a batch has no entry 'area'"):
        task.check_metrics(net, batch)
