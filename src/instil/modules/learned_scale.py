"""Learned scale of image-text similarities."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from instil.core import to_float32
from instil.functional.choices import require_choice

Form = Literal["code", "paper"]
FORMS = ("code", "paper")


def require_form(form: str) -> None:
    """Check the name of a form.

    Raises:
        ValueError: if ``form`` is not one of ``FORMS``.
    """
    require_choice("form", form, FORMS)


class LearnedScale(nn.Module):
    """Learned factor (1,) of similarities.

    Args:
        form: ``"paper"``: the parameter is the logarithm of the factor. ``"code"``: the parameter
            is the factor itself. Both start at log(1 / 0.07).
        embedding: embedding of a dry batch, for device and dtype.
    """

    def __init__(self, form: Form, embedding: Tensor):
        super().__init__()
        self.form = form
        start = math.log(1 / 0.07)
        dtype = to_float32(embedding).dtype
        self.value = nn.Parameter(torch.full((1,), start, device=embedding.device, dtype=dtype))

    def forward(self) -> Tensor:
        return self.value.exp() if self.form == "paper" else self.value
