"""Outputs of models that do not name them, and of wrapped ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import instil
from instil.tasks.bases.main_output import main_output
from instil.tasks.classification import call


@dataclass
class Named:
    image: Tensor
    logits: Tensor


class Second(NamedTuple):
    image: Tensor
    logits: Tensor


class Model(nn.Module):
    def __init__(self, form: Any) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.form = form

    def forward(self, image: Tensor) -> Any:
        return self.form(image, self.head(image.flatten(1)))


@pytest.mark.parametrize("form", [Named, Second, lambda image, logits: (logits, image)])
def test_logits_of_every_form(form: Any) -> None:
    model, image = Model(form), torch.rand(2, 1, 2, 2)
    assert torch.equal(call(model, {"image": image})["logits"], model.head(image.flatten(1)))


@pytest.mark.parametrize("result", [None, (), ("a",), object()])
def test_other_results_are_errors(result: Any) -> None:
    with pytest.raises(ValueError, match=r"^model: returned a .*Expected a tensor"):
        main_output(result)


def test_features_of_a_data_parallel_model_are_found() -> None:
    def net() -> nn.Module:
        return nn.DataParallel(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(16, 3)))

    loader = [(torch.rand(4, 1, 2, 2), torch.arange(4) % 3)]
    result = instil.distil(net(), net(), loader, {"fitnet": 1.0}, epochs=1, progress=False)
    assert set(result.records[0]["losses"]) == {"student/fitnet"}
