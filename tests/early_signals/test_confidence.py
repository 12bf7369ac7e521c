"""Agreement, entropy and calibration against independent computations."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import entropy
from torchmetrics.classification import MulticlassCalibrationError

from instil.early_signals.confidence import (
    class_probabilities,
    expected_calibration_error,
    label_agreement,
    normalized_entropy,
    unsure_share,
)

LOGITS = 3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(200) % 5


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    probabilities = class_probabilities(LOGITS, is_single=True)
    reference = MulticlassCalibrationError(5, 15)(probabilities, LABEL)
    assert expected_calibration_error(probabilities, LABEL) == pytest.approx(float(reference))


def test_unlabelled_items_do_not_count_for_agreement_and_calibration() -> None:
    probabilities = class_probabilities(LOGITS, is_single=True)
    target = torch.where(torch.arange(200) < 50, LABEL, -100)
    for signal in (label_agreement, expected_calibration_error):
        assert signal(probabilities, target) == signal(probabilities[:50], LABEL[:50])
        assert signal(probabilities, torch.full_like(target, -100)) is None


def test_the_entropy_is_a_share_of_its_maximum() -> None:
    probabilities = class_probabilities(LOGITS, is_single=True)
    reference = entropy(probabilities.numpy(), base=5, axis=1).mean()
    assert normalized_entropy(probabilities) == pytest.approx(reference, rel=1e-5)
    assert normalized_entropy(torch.eye(3)) == 0
    assert normalized_entropy(torch.full((2, 4), 0.25)) == pytest.approx(1)


def test_each_of_several_classes_is_a_decision_of_its_own() -> None:
    probabilities = class_probabilities(torch.tensor([[9.0, -9.0, 0.1]]), is_single=False)
    assert probabilities.shape == (1, 3, 2)
    assert label_agreement(probabilities, torch.tensor([[1, 0, 0]])) == pytest.approx(2 / 3)
    assert unsure_share(probabilities) == pytest.approx(1 / 3)
