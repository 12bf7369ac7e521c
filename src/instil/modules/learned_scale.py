"""Learned scale of image-text similarities."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import closest, to_float32

Form = Literal["code", "paper"]


FORMS = ("code", "paper")


def require_form(form: str) -> None:
    """ValueError unless ``form`` is one of ``FORMS``."""
    if form not in FORMS:
        raise ValueError(f"form: no form '{form}'; {closest(form, FORMS)}")


class LearnedScale(nn.Module):
    """What similarities are multiplied with, (1,): learned from log(1 / 0.07), as its logarithm (paper) or as the number itself (code)."""

    def __init__(self, form: Form, embedding: Tensor):
        super().__init__()
        self.form = form
        self.value = nn.Parameter(
            torch.full(
                (1,), math.log(1 / 0.07), device=embedding.device, dtype=to_float32(embedding).dtype
            )
        )

    def forward(self) -> Tensor:
        return self.value.exp() if self.form == "paper" else self.value
