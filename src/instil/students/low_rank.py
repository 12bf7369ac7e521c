"""A head of low rank: hidden states are narrowed before they meet the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.students import Observe


class LowRank(nn.Linear):
    """``weight`` (V, R) on what ``down`` (R, H) makes of a hidden state."""

    def __init__(self, down: Tensor, up: Tensor, bias: Tensor | None):
        super().__init__(up.shape[1], up.shape[0], bias is not None, device="meta")
        self.down = nn.Linear(down.shape[1], down.shape[0], bias=False, device="meta")
        self.down.weight, self.weight = nn.Parameter(down), nn.Parameter(up)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(self.down(hidden), self.weight, self.bias)


def low_rank(model: nn.Module, rank: Annotated[int, Ge(1)], observe: Observe = None) -> nn.Module:
    """The language model, in place, with a head of this rank: of all of them the one whose logits are nearest on some samples of the data.

    Minimises E|W h - W' h|^2 over the hidden states h: with E[h h'] = L L' the principal directions of W L (Chen et al., NeurIPS 2021). A head that
    was tied to the embeddings is so no longer. Raises ValueError for a model without a head over tokens, and a rank that saves nothing.
    """
    asked: Any = model
    head = asked.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is None:
        raise ValueError(f"{type(model).__name__} has no head over tokens (get_output_embeddings)")
    weight = head.weight.detach()
    vocabulary, width = weight.shape
    if rank * (vocabulary + width) >= vocabulary * width:
        raise ValueError(
            f"a head of {vocabulary} x {width} becomes smaller only with a rank below {vocabulary * width / (vocabulary + width):.0f}"
        )
    root = _root(model, width, observe)
    scaled = weight.double() @ root
    basis = torch.linalg.eigh(scaled.T @ scaled).eigenvectors[:, -rank:]
    down = torch.linalg.solve(root.T, basis).T  # basis' root^-1
    path = next(name for name, part in model.named_modules() if part is head)
    model.set_submodule(path, LowRank(down.to(weight), (scaled @ basis).to(weight), head.bias))
    if hasattr(model, "config"):
        asked.config.tie_word_embeddings = False
    return model


def _root(model: nn.Module, width: int, observe: Observe) -> Tensor:
    """L of E[h h'] = L L'; the identity where nothing is shown."""
    moment, seen = torch.zeros(width, width, dtype=torch.float64), 0
    with torch.no_grad():
        for outputs in observe(model) if observe is not None else ():
            rows = outputs["projection"].hidden.double().flatten(0, -2).cpu()
            moment += rows.T @ rows
            seen += len(rows)
    if not seen:
        return torch.eye(width, dtype=torch.float64)
    mean = moment / seen
    root: Tensor = torch.linalg.cholesky(
        mean + 1e-4 * mean.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    )
    return root
