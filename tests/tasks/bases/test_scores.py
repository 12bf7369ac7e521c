import math

import pytest
import torch

from instil.tasks.bases.scores import calibration, scores


def single(count: int = 400, classes: int = 5):
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator) * 2
    logits[torch.arange(count), label] += 1
    return logits, label


def test_single_label_metrics_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    metrics, details = scores(logits, torch.tensor([0, 1, 2, -100]))
    log_probability = [
        2 - math.log(math.exp(2) + 2),
        1 - math.log(math.e + 2),
        -math.log(math.exp(3) + 2),
    ]
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx(-sum(log_probability) / 3)
    assert details["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_calibration_error_by_a_plain_loop():
    logits, label = single()
    metrics, details = scores(logits, label)
    confidence, predicted = logits.softmax(1).max(1)
    expected, rows = 0.0, []
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            share, mean = (
                (predicted == label)[inside].double().mean().item(),
                confidence[inside].double().mean().item(),
            )
            rows.append((mean, share, int(inside.sum())))
            expected += inside.double().mean().item() * abs(share - mean)
    assert metrics["ece"] == pytest.approx(expected, abs=1e-6)
    assert metrics["ece"] > 0.05
    assert [(row["count"]) for row in details["calibration"]] == [row[2] for row in rows]
    for row, (mean, share, _) in zip(details["calibration"], rows, strict=True):
        assert (row["confidence"], row["accuracy"]) == (pytest.approx(mean), pytest.approx(share))


def test_confidences_0_and_1_belong_to_the_outer_bins():
    assert calibration(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == [
        {"confidence": 0.0, "accuracy": 0.0, "count": 1},
        {"confidence": 1.0, "accuracy": 1.0, "count": 1},
    ]


def test_agreement_counts_unlabelled_items_too():
    logits, label = single(10)
    label[:5] = -100
    teacher = logits.clone()
    teacher[0] = -teacher[0]
    assert scores(logits, label, teacher)[0]["agreement"] == pytest.approx(0.9)


def test_multi_label_metrics_equal_scikit_learn():
    reference = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(1)
    label = (torch.rand(200, 4, generator=generator) < 0.3).float()
    label[:, 3] = 0  # a class without a positive
    logits = torch.randn(200, 4, generator=generator) + label
    metrics, details = scores(logits, label, logits * 2, "multi")
    assert metrics["accuracy"] == pytest.approx(
        ((logits > 0) == label.bool()).float().mean().item()
    )
    assert metrics["map"] == pytest.approx(
        reference.average_precision_score(label[:, :3], logits[:, :3], average="macro"), abs=1e-6
    )
    assert metrics["agreement"] == 1
    assert (
        torch.tensor(details["confusion"]).tolist()
        == reference.multilabel_confusion_matrix(label, logits > 0).tolist()
    )


def test_missing_multi_label_entries_do_not_count():
    label = torch.tensor([[1.0, -100.0], [0.0, 1.0], [-100.0, -100.0], [1.0, 0.0]])
    logits = torch.tensor([[1.0, -9.0], [-1.0, 2.0], [5.0, 5.0], [-1.0, 1.0]])
    metrics, details = scores(logits, label, kind="multi")
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert sum(torch.tensor(details["confusion"]).flatten()) == 5
    whole = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor([1.0, -1, 2, -1, 1]), torch.tensor([1.0, 0, 1, 1, 0])
    )
    assert metrics["loss"] == pytest.approx(whole.item())


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_binary_labels(shape):
    metrics, details = scores(
        torch.tensor([2.0, -1, 3, 1]).reshape(shape),
        torch.tensor([1.0, 0, 0, 1]).reshape(shape),
        kind="binary",
    )
    assert metrics["accuracy"] == 0.75
    assert details["confusion"] == [[1, 1], [0, 2]]
    assert "map" not in metrics


def test_half_precision_is_converted_to_float32():
    logits, label = single()
    assert scores(logits.bfloat16(), label)[0]["loss"] == pytest.approx(
        scores(logits.bfloat16().float(), label)[0]["loss"]
    )


def test_unlabelled_items_and_infinite_logits_raise():
    with pytest.raises(ValueError, match="no item to evaluate on has a label"):
        scores(torch.zeros(3, 2), torch.full((3,), -100))
    with pytest.raises(ValueError, match="1 of 3 items have logits that are not finite"):
        scores(torch.tensor([[0.0, torch.nan], [0, 0], [0, 0]]), torch.zeros(3, dtype=torch.int64))


def test_every_value_can_be_written_as_json():
    metrics, details = scores(*single())
    assert all(type(value) is float for value in metrics.values())
    assert all(type(row["count"]) is int for row in details["calibration"])


def test_low_confidences_have_separate_bins():
    rows = calibration(torch.tensor([0.03, 0.05, 0.08, 0.13, 0.14]), torch.ones(5))
    assert [row["count"] for row in rows] == [2, 2, 1]
