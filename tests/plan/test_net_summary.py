"""Summary of the outputs of student and teacher."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.plan.net_summary import compare_outputs, summarize_net
from instil.roles import Projection, Sampled, Top


def test_the_shape_of_every_form_of_output() -> None:
    net = Net(nn.Linear(3, 4), lambda model, batch: {"logits": model(batch["image"])})
    indices = torch.zeros(2, 5, 3, dtype=torch.int32)
    outputs = {
        "logits": torch.zeros(2, 4),
        "features": (torch.zeros(2, 8), torch.zeros(2, 6)),
        "projection": Projection(torch.zeros(2, 5, 7), torch.zeros(11, 7)),
        "top": Top(torch.zeros(2, 5, 3), indices, torch.zeros(2, 5)),
        "sampled": Sampled(indices, torch.zeros(2, 5, 3)),
        "text": "three",
        "members": (),
    }
    summary = summarize_net(net, outputs)
    assert summary["parameters"] == 3 * 4 + 4
    assert summary["taps"] == {}
    assert summary["roles"] == {
        "logits": [2, 4],
        "features": [[2, 8], [2, 6]],
        "projection": [2, 5, 11],
        "top": [2, 5, 3],
        "sampled": [2, 5, 3],
        "text": [5],
    }


def test_accuracy_and_agreement() -> None:
    student = {"logits": torch.eye(3)[[0, 1, 2, 2]]}
    teacher = {"logits": torch.eye(3)[[0, 0, 2, 1]]}
    values = compare_outputs(student, teacher, {"label": torch.tensor([0, 1, 0, -100])})
    assert values == pytest.approx(
        {"student_accuracy": 2 / 3, "teacher_accuracy": 1 / 3, "agreement": 0.5}
    )


@pytest.mark.parametrize("label", [torch.zeros(4), torch.full((4,), -100), None])
def test_without_class_labels_there_is_no_accuracy(label: torch.Tensor | None) -> None:
    batch = {} if label is None else {"label": label}
    logits = torch.eye(3)[[0, 1, 2, 2]]
    assert compare_outputs({"logits": logits}, {"logits": logits}, batch) == {"agreement": 1.0}
    assert compare_outputs({"logits": logits}, {}, batch) == {}
