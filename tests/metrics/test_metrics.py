"""Metrics against formulas of their own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.metrics.bases.metric import Metric
from instil.metrics.calibration_error import CalibrationError
from instil.metrics.character_error_rate import CharacterErrorRate
from instil.metrics.equal_error_rate import EqualErrorRate
from instil.metrics.macro_f1 import MacroF1
from instil.metrics.mean_average_precision import MeanAveragePrecision
from instil.metrics.negative_log_likelihood import NegativeLogLikelihood
from instil.metrics.top_k_accuracy import TopKAccuracy
from instil.metrics.word_error_rate import WordErrorRate


def value_of(metric: Metric, *batches: tuple[dict[str, Any], dict[str, Any]]) -> float:
    """Value over batches of outputs and labels, after a reset."""
    metric.reset()
    for outputs, batch in batches:
        metric.update(outputs, batch)
    return metric.compute()


def items(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits (60, 6) and labels (60,); every seventh label is missing."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(60, 6, generator=generator)
    label = torch.randint(6, (60,), generator=generator)
    label[::7] = UNLABELLED
    return logits, label


def in_parts(metric: Metric, logits: Tensor, label: Tensor) -> float:
    parts = zip(logits.split([10, 0, 50]), label.split([10, 0, 50]), strict=True)
    return value_of(metric, *(({"logits": a}, {"label": b}) for a, b in parts))


def test_top_k_accuracy() -> None:
    logits, label = items()
    hits = [
        int(target) in row.argsort(descending=True)[:3].tolist()
        for row, target in zip(logits, label, strict=True)
        if target >= 0
    ]
    assert in_parts(TopKAccuracy(3), logits, label) == pytest.approx(sum(hits) / len(hits))
    with pytest.raises(ValueError, match=r"k: 6 is too large\. Expected less than the 6 classes"):
        in_parts(TopKAccuracy(6), logits, label)


def test_top_k_accuracy_of_logits_whose_probabilities_are_zero() -> None:
    logits = torch.full((1, 10), -500.0)
    logits[0, 7:] = torch.tensor([-200.0, -150.0, 0.0])
    assert value_of(TopKAccuracy(3), ({"logits": logits}, {"label": torch.tensor([7])})) == 1


def test_macro_f1_leaves_out_absent_classes() -> None:
    label = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])
    assert value_of(MacroF1(), ({"logits": label - 0.5}, {"label": label})) == 1


def f1(predicted: Tensor, truth: Tensor) -> float:
    hits = int((predicted & truth).sum())
    return 2 * hits / (int(predicted.sum()) + int(truth.sum()))


def test_macro_f1_of_one_and_of_several_classes() -> None:
    logits, label = items()
    is_labelled = label >= 0
    decisions = logits.argmax(1)[is_labelled]
    scores = [f1(decisions == index, label[is_labelled] == index) for index in range(6)]
    assert in_parts(MacroF1(), logits, label) == pytest.approx(sum(scores) / 6, abs=1e-6)
    several = (torch.rand(60, 6, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    several[::5, 2] = UNLABELLED
    scores = []
    for index in range(6):
        has_label = several[:, index] != UNLABELLED
        scores.append(f1(logits[has_label, index] > 0, several[has_label, index] == 1))
    assert in_parts(MacroF1(), logits, several) == pytest.approx(sum(scores) / 6, abs=1e-6)


@pytest.mark.parametrize("norm", ["mean", "max"])
def test_calibration_error(norm: Any) -> None:
    logits, label = items()
    logits = 3 * logits
    is_labelled = label >= 0
    confidence, decision = logits.softmax(1)[is_labelled].max(1)
    correct = (decision == label[is_labelled]).float()
    total, largest = 0.0, 0.0
    for low in torch.arange(10) / 10:
        rows = (confidence > low) & (confidence <= low + 0.1)
        if rows.any():
            gap = float((confidence[rows].mean() - correct[rows].mean()).abs())
            total += gap * int(rows.sum()) / len(confidence)
            largest = max(largest, gap)
    expected = {"mean": total, "max": largest}[norm]
    assert in_parts(CalibrationError(10, norm), logits, label) == pytest.approx(expected, abs=1e-5)


def test_negative_log_likelihood() -> None:
    logits, label = items()
    values = [
        float(row.logsumexp(0) - row[target])
        for row, target in zip(logits.double(), label, strict=True)
        if target >= 0
    ]
    expected = sum(values) / len(values)
    assert in_parts(NegativeLogLikelihood(), logits, label) == pytest.approx(expected, rel=1e-6)
    several = (logits > 0.3).float()
    several[0, 0] = UNLABELLED
    probability = logits.double().sigmoid()
    entries = torch.where(several == 1, probability, 1 - probability).log()[several != UNLABELLED]
    expected = -float(entries.mean())
    assert in_parts(NegativeLogLikelihood(), logits, several) == pytest.approx(expected, rel=1e-6)


def test_pixels_and_invalid_items() -> None:
    logits, label = items()
    expected = in_parts(NegativeLogLikelihood(), logits, label)
    grid = {"logits": logits.view(3, 4, 5, 6)}, {"label": label.view(3, 4, 5)}
    assert value_of(NegativeLogLikelihood(), grid) == pytest.approx(expected)
    valid = label != UNLABELLED
    filled = {"logits": logits}, {"label": label.clamp_min(0), "valid": valid}
    assert value_of(NegativeLogLikelihood(), filled) == pytest.approx(expected)
    with pytest.raises(ValueError, match="do not fit labels"):
        value_of(NegativeLogLikelihood(), ({"logits": logits}, {"label": label[:5]}))
    with pytest.raises(ValueError, match="no item to evaluate on has a label"):
        value_of(MacroF1())


def edit_distance(one: Any, other: Any) -> int:
    """Levenshtein distance of two sequences."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def words(symbols: list[int], separator: int) -> list[tuple[int, ...]]:
    groups = itertools.groupby(symbols, lambda symbol: symbol == separator)
    return [tuple(group) for is_separator, group in groups if not is_separator]


def test_error_rates_of_sequences() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, 14, 5, generator=generator)
    label = torch.randint(1, 5, (9, 8), generator=generator)
    for row, length in enumerate((8, 7, 6, 5, 4, 3, 2, 1, 0)):
        label[row, length:] = UNLABELLED
    valid = torch.arange(14) < torch.tensor([14, 13, 12, 11, 10, 9, 8, 7, 6])[:, None]
    errors, symbols, word_errors, num_words = 0, 0, 0, 0
    for row in range(8):
        path = [key for key, _ in itertools.groupby(logits[row].argmax(1)[valid[row]].tolist())]
        decoded = [symbol for symbol in path if symbol != 0]
        target = label[row][label[row] >= 0].tolist()
        errors += edit_distance(decoded, target)
        symbols += len(target)
        word_errors += edit_distance(words(decoded, 4), words(target, 4))
        num_words += len(words(target, 4))
    batch = {"logits": logits}, {"label": label, "valid": valid}
    assert value_of(CharacterErrorRate(0), batch) == pytest.approx(errors / symbols)
    assert value_of(WordErrorRate(4, 0), batch) == pytest.approx(word_errors / num_words)
    frames = {"logits": logits, "frame_length": valid.sum(1)}, {"label": label}
    assert value_of(CharacterErrorRate(0), frames) == pytest.approx(errors / symbols)
    assert value_of(WordErrorRate(4, 0), frames) == pytest.approx(word_errors / num_words)
    exact = torch.nn.functional.one_hot(label[:1]).float()
    assert value_of(CharacterErrorRate(), ({"logits": exact}, {"label": label[:1]})) == 0


@pytest.mark.parametrize(
    ("outputs", "batch", "message"),
    [
        ({}, {"valid": torch.ones(3)}, r"valid: wrong .* Expected \(3, 5\), got \(3,\)"),
        ({}, {"valid": torch.ones(3, 1)}, r"valid: wrong .* Expected \(3, 5\), got \(3, 1\)"),
        ({}, {"valid": torch.ones(2, 5)}, r"valid: wrong .* Expected \(3, 5\), got \(2, 5\)"),
        (
            {"frame_length": torch.tensor([5, 4])},
            {},
            r"frame_length: .* Expected \(3,\), got \(2,\)",
        ),
        ({}, {"label": torch.ones(2, 2)}, r"labels \(2, 2\)\. Expected logits \(N, T, C\)"),
    ],
)
def test_sequences_of_wrong_shapes_raise(
    outputs: dict[str, Tensor], batch: dict[str, Tensor], message: str
) -> None:
    label = torch.ones(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        CharacterErrorRate(0).update(
            {"logits": torch.randn(3, 5, 4)} | outputs, {"label": label} | batch
        )


def test_equal_error_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(40) % 4
    embedding = torch.randn(40, 8, generator=generator) + 1.5 * torch.eye(8)[label]
    label[3] = UNLABELLED
    labelled = [row for row in range(40) if row != 3]
    genuine, impostor = [], []
    for i, j in itertools.combinations(labelled, 2):
        cosine = float(torch.cosine_similarity(embedding[i], embedding[j], dim=0))
        (genuine if label[i] == label[j] else impostor).append(cosine)
    rates = []
    for threshold in sorted([*genuine, *impostor]):
        accepted = sum(score >= threshold for score in impostor) / len(impostor)
        rejected = sum(score < threshold for score in genuine) / len(genuine)
        rates.append((abs(accepted - rejected), (accepted + rejected) / 2))
    batch = {"embedding": embedding}, {"label": label}
    assert value_of(EqualErrorRate(), batch) == pytest.approx(min(rates)[1], abs=1e-6)
    perfect = {"embedding": torch.eye(4)[label.clamp_min(0)]}, {"label": label}
    assert value_of(EqualErrorRate(), perfect) == 0
    with pytest.raises(ValueError, match="no pair of one class, or no pair of two"):
        value_of(EqualErrorRate(), ({"embedding": embedding}, {"label": torch.arange(40)}))


def test_equal_error_rate_warns_of_samples_that_it_leaves_out() -> None:
    embedding = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 0, UNLABELLED, 1, 0])
    with pytest.warns(UserWarning, match="the first 3 of 5 labelled samples are paired"):
        first = value_of(
            EqualErrorRate(max_samples=3), ({"embedding": embedding}, {"label": label})
        )
    assert first == value_of(EqualErrorRate(), ({"embedding": embedding[:3]}, {"label": label[:3]}))


def test_mean_average_precision() -> None:
    pytest.importorskip("pycocotools")
    box = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[0.0, 0, 10, 10], [-100] * 4]])
    label = torch.tensor([[0, 0], [0, UNLABELLED]])
    detections = (
        {
            "boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]]),
            "labels": torch.tensor([0, 0]),
            "scores": torch.tensor([0.9, 0.8]),
        },
        {
            "boxes": torch.tensor([[0.0, 0, 10, 9]]),
            "labels": torch.tensor([0]),
            "scores": torch.tensor([0.7]),
        },
    )
    batch = {"detections": detections}, {"label": label, "box": box}
    # Precision at the recalls 1/3 and 2/3 is 1 and 2/3; the third box is never detected. COCO
    # takes the mean over the recalls 0, 0.01, ..., 1.
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert value_of(MeanAveragePrecision([0.5]), batch) == pytest.approx(expected, abs=1e-3)
    # The second image's box has an intersection over union of 0.9.
    strict = value_of(MeanAveragePrecision([0.95]), batch)
    assert strict == pytest.approx(34 / 101, abs=1e-3)
    metric = MeanAveragePrecision()
    metric.update(*batch)
    scores = metric.scores()
    assert scores["map_50"] == value_of(MeanAveragePrecision([0.5]), batch)
    assert scores["map"] == metric.compute() < scores["map_50"]


def test_a_recall_of_exactly_a_threshold_counts_as_in_coco() -> None:
    pytest.importorskip("pycocotools")
    left = torch.arange(10) * 20.0
    box = torch.stack([left, left * 0, left + 10, left * 0 + 10], -1)
    detected = {"boxes": box[:1], "labels": torch.tensor([0]), "scores": torch.tensor([0.9])}
    batch = {"label": torch.zeros(1, 10, dtype=torch.int64), "box": box[None]}
    value = value_of(MeanAveragePrecision([0.5]), ({"detections": (detected,)}, batch))
    # One of ten boxes: the precision is 1 at the recalls 0, 0.01, ..., 0.1.
    assert value == pytest.approx(11 / 101, abs=1e-6)


def test_detections_in_a_group_of_objects_do_not_count_as_in_coco() -> None:
    pytest.importorskip("pycocotools")
    objects = {"label": torch.tensor([[0]]), "box": torch.tensor([[[0.0, 0, 10, 10]]])}
    group = {"group_label": torch.tensor([[0, UNLABELLED]])}
    group["group_box"] = torch.tensor([[[20.0, 0, 60, 40], [-100.0] * 4]])
    detected = {
        # The first and the last lie in the group, which is far larger than they are.
        "boxes": torch.tensor([[30.0, 10, 40, 20], [0, 0, 10, 10], [45, 20, 55, 30]]),
        "labels": torch.tensor([0, 0, 0]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    outputs = {"detections": (detected,)}
    assert value_of(MeanAveragePrecision(), (outputs, objects | group)) == pytest.approx(1)
    assert value_of(MeanAveragePrecision(), (outputs, objects)) == pytest.approx(0.5)
    of_another_class = {"group_label": torch.tensor([[1, UNLABELLED]])}
    value = value_of(MeanAveragePrecision(), (outputs, objects | group | of_another_class))
    assert value == pytest.approx(0.5)
