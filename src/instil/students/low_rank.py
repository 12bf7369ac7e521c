"""A language-model head of low rank: hidden states are projected down before the vocabulary."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.students import Observe
from instil.students.layers import output_head, without_padding

RIDGE = 1e-4
"""Part of the mean variance that is added to each direction, so that the root exists."""


class LowRank(nn.Linear):
    """Linear layer of low rank: ``weight`` (V, R) after ``down`` (R, H)."""

    def __init__(self, down: Tensor, up: Tensor, bias: Tensor | None):
        # On the meta device, which neither allocates nor draws the weights that are replaced below.
        super().__init__(up.shape[1], up.shape[0], bias is not None, device="meta")
        self.down = nn.Linear(down.shape[1], down.shape[0], bias=False, device="meta")
        self.down.weight = nn.Parameter(down)
        self.weight = nn.Parameter(up)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, hidden: Tensor) -> Tensor:
        """Compute logits (..., V) from hidden states (..., H)."""
        return F.linear(self.down(hidden), self.weight, self.bias)


def low_rank(
    model: nn.Module,
    rank: Annotated[int, Ge(1), Doc("rank of the head")],
    observe: Observe = None,
) -> nn.Module:
    """Replace the head of a language model, in place, by the best one of low rank.

    It minimises E|W h - W' h|^2 over the hidden states h of samples: with E[h h'] = L L', its
    directions are the principal directions of W L (Chen et al., NeurIPS 2021). A head that was tied
    to the embeddings is no longer tied.

    Raises:
        ValueError: for a model without a head over tokens, and for a rank that saves nothing.
    """
    language_model: Any = model
    head: Any = output_head(model)
    if head is None:
        raise ValueError(f"{type(model).__name__} has no head over tokens (get_output_embeddings)")
    weight = head.weight.detach()
    vocabulary, width = weight.shape
    largest_rank = vocabulary * width / (vocabulary + width)
    if rank >= largest_rank:
        raise ValueError(
            f"a head of {vocabulary} x {width} becomes smaller only with a rank below "
            f"{largest_rank:.0f}"
        )
    root = _second_moment_root(model, width, observe)
    # float64: the eigenvalues are squares of singular values, which halves the digits.
    scaled = weight.double() @ root
    basis = torch.linalg.eigh(scaled.T @ scaled).eigenvectors[:, -rank:]
    down = torch.linalg.solve(root.T, basis).T  # basis' root^-1
    path = next(name for name, part in model.named_modules() if part is head)
    model.set_submodule(path, LowRank(down.to(weight), (scaled @ basis).to(weight), head.bias))
    # Otherwise loading would tie the new head to the embedding, whose shape is another one.
    if hasattr(model, "config"):
        language_model.config.tie_word_embeddings = False
    return model


def _second_moment_root(model: nn.Module, width: int, observe: Observe) -> Tensor:
    """Return L of E[h h'] = L L' (width, width); the identity without samples."""
    moment = torch.zeros(width, width, dtype=torch.float64)
    count = 0
    with torch.no_grad():
        for outputs in observe(model) if observe is not None else ():
            # Summed in float64 on the CPU: the moment of many tokens exceeds the precision of
            # float32.
            hidden = without_padding(outputs["projection"].hidden, observe)
            hidden = hidden.double().flatten(0, -2).cpu()
            moment += hidden.T @ hidden
            count += len(hidden)
    identity = torch.eye(width, dtype=torch.float64)
    if not count:
        return identity
    mean = moment / count
    root: Tensor = torch.linalg.cholesky(mean + RIDGE * mean.diagonal().mean() * identity)
    return root
