"""Activity of the parts of a model on samples: the size of neurons, heads and channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from instil.students import Observe
from instil.students.layers import observe_parts


def activation_norms(
    model: nn.Module,
    modules: list[Any],
    observe: Observe,
    group: int = 1,
    of_output: bool = False,
) -> list[Tensor | None]:
    """Return the mean norm of every ``group`` neighbouring features of each module.

    Args:
        model: the model.
        modules: modules whose features are measured.
        observe: runs the model on samples.
        group: number of neighbouring features.
        of_output: measure outputs instead of inputs.

    Returns:
        One tensor (features / group,) per module, or None without samples.
    """
    norms: list[Tensor | None] = [None] * len(modules)

    def add(index: int, module_input: Tensor, module_output: Tensor) -> None:
        values = (module_output if of_output else module_input).float()
        norm = values.reshape(-1, values.shape[-1] // group, group).norm(dim=-1).mean(0)
        total = norms[index]
        norms[index] = norm if total is None else total + norm

    observe_parts(model, modules, observe, add)
    return norms
