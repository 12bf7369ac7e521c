from __future__ import annotations

import pytest
import torch
from torch import nn

from instil.core import Net
from instil.students.nearest_mean import head_inputs, set_class_means


def net() -> Net:
    torch.manual_seed(0)
    return Net(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 3)))


def test_features_are_the_normalized_inputs_of_the_head() -> None:
    student = net()
    batches = [{"x": torch.randn(3, 5)}, {"x": torch.randn(2, 5)}]
    rows = torch.cat([student.model[:2](batch["x"]) for batch in batches])
    features = head_inputs(student, batches, "option")
    assert torch.allclose(features, rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12))
    assert student.training


def test_the_head_predicts_the_nearest_normalized_mean() -> None:
    student = net().eval()
    groups = {label: {"x": torch.randn(6, 5) + 2 * label} for label in range(3)}
    features = {label: head_inputs(student, [group], "option") for label, group in groups.items()}
    set_class_means(student, features, groups[0], "option")
    means = torch.stack([rows.mean(0) for rows in features.values()])
    means = means / means.norm(dim=1, keepdim=True)
    x = torch.randn(50, 5) + 2
    nearest = torch.cdist(head_inputs(student, [{"x": x}], "option"), means).argmin(1)
    assert torch.equal(student({"x": x})["logits"].argmax(1), nearest)


def test_another_head_is_an_error() -> None:
    student = Net(nn.Sequential(nn.Conv2d(1, 3, 1)))
    with pytest.raises(ValueError, match=r"^option: the head '0' is Conv2d\. Expected a linear"):
        head_inputs(student, [{"image": torch.randn(2, 1, 4, 4)}], "option")
