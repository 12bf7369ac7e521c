"""Memory of the optimizers of a scheme, from steps on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from instil.core import Scheme
from instil.engine.learners import create_learner
from instil.engine.optimization import Optimization
from instil.tasks.bases.peak_memory import PeakMemory


@dataclass(frozen=True)
class OptimizerMemory:
    """Memory of the optimizers.

    Attributes:
        states: number of tensors with the shape of the parameter that each one has, with the bytes
            of an element: parameter -> bytes per element of the parameter.
        fixed: bytes of all other states, which are not sharded.
        temporary: largest number of bytes that an update of one parameter after the other needs.
    """

    states: Mapping[nn.Parameter, int]
    fixed: int
    temporary: int


def optimizer_memory(scheme: Scheme, optimizations: Mapping[str, Optimization]) -> OptimizerMemory:
    """Measure the states of the optimizers that a training creates.

    Args:
        scheme: prepared scheme; its tensors need no values.
        optimizations: learner -> its optimization.

    Raises:
        ValueError: if a learner has no parameter, or options do not fit.
    """
    states: dict[nn.Parameter, int] = {}
    fixed = temporary = 0
    owner: dict[nn.Parameter, str] = {}
    for name, paths in scheme.learners.items():
        learner = create_learner(name, paths, scheme, optimizations[name], owner)
        twins = {parameter: _twin(parameter) for parameter in learner.parameters}
        twin_optimizer = _stepped(learner.optimizer, twins, optimizations[name])
        with PeakMemory() as live:
            twin_optimizer.step()
        temporary = max(temporary, live.peak)
        for parameter, twin in twins.items():
            states[parameter] = 0
            for value in twin_optimizer.state.get(twin, {}).values():
                if isinstance(value, Tensor) and value.shape == twin.shape:
                    states[parameter] += value.element_size()
                elif isinstance(value, Tensor):
                    fixed += value.nbytes
    return OptimizerMemory(states, fixed, temporary)


def _twin(parameter: nn.Parameter) -> nn.Parameter:
    """Parameter of the same shape on the meta device, with a gradient."""
    twin = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="meta"))
    twin.grad = torch.empty_like(twin)
    return twin


def _stepped(
    optimizer: Optimizer, twins: Mapping[nn.Parameter, nn.Parameter], optimization: Optimization
) -> Optimizer:
    """Optimizer of the same kind for other parameters, after its first step."""
    groups = []
    for group in optimizer.param_groups:
        options = {"foreach": False} if "foreach" in group else {}
        params = [twins[parameter] for parameter in group["params"]]
        groups.append(group | {"params": params} | options)
    twin_optimizer = optimization.make(groups)
    twin_optimizer.step()
    return twin_optimizer
