"""Every baseline has a description and trains accordingly."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from instil import catalogue
from instil.baselines.bases import Baseline
from instil.core import UNLABELLED
from instil.tasks.classification import Classification

NAMES = catalogue.names("baseline")


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_is_described_for_reports(name: str) -> None:
    kind = catalogue.find("baseline", name)
    assert issubclass(kind, Baseline)
    assert kind.display_name
    assert kind.phrase()
    assert kind.color is None or re.fullmatch("#[0-9a-f]{6}", kind.color)


def test_the_catalogue_has_the_baselines_of_the_package() -> None:
    assert set(catalogue.files("baseline")) == {
        "alone",
        "blobs",
        "label_smoothing",
        "noise",
        "pseudo_labels",
        "random_init",
    }


@pytest.mark.parametrize(
    ("kind", "defined"),
    [
        ("single", {"alone", "label_smoothing", "pseudo_labels"}),
        ("multi", {"alone", "pseudo_labels"}),
        ("binary", {"alone", "pseudo_labels"}),
    ],
)
def test_baselines_of_classification(kind: str, defined: set[str]) -> None:
    task = Classification(kind=kind)
    with_data = [name for name in NAMES if not catalogue.find("baseline", name).is_data_free]
    assert {n for n in with_data if catalogue.find("baseline", n).applies(task)} == defined


@pytest.mark.parametrize(
    ("kind", "logits", "label", "expected"),
    [
        (
            "single",
            [[0.0, 2.0], [3.0, 1.0]],
            [UNLABELLED, 1],
            [1, 1],
        ),
        (
            "multi",
            [[0.5, -2.0], [3.0, 1.0]],
            [[UNLABELLED, UNLABELLED], [0.0, 1.0]],
            [[1.0, 0.0], [0.0, 1.0]],
        ),
    ],
)
def test_pseudo_labels_fill_in_unlabelled_samples(
    kind: str, logits: Any, label: Any, expected: Any
) -> None:
    task = Classification(kind=kind)
    label = torch.tensor(label)
    filled = task.pseudo_labels({"logits": torch.tensor(logits)}, label)
    assert filled.dtype == label.dtype
    assert torch.equal(filled, torch.tensor(expected, dtype=label.dtype))
