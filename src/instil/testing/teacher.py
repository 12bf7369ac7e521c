"""Contracts of teachers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Batch, Teacher
from instil.testing.structures import named_tensors


def check_teacher(make: Callable[[], Teacher], batch: Batch, differentiable: bool = True) -> None:
    """Check all contracts of a teacher.

    It stays in eval mode, builds a graph only with ``grad=True``, repeats its outputs, and has no
    trainable parameter.

    Args:
        make: returns a new teacher.
        batch: batch that the teacher accepts.
        differentiable: whether the teacher can build a graph. Otherwise ``grad=True`` must be a
            ValueError.

    Raises:
        AssertionError: for the first broken contract.
    """
    teacher = make()
    nn.ModuleList([teacher]).train()
    assert not any(part.training for part in teacher.modules()), (
        "train() of its parent put the teacher in train mode"
    )
    outputs = teacher(batch)
    assert all(not tensor.requires_grad for _, tensor in named_tensors(outputs)), (
        "the outputs have a graph without grad=True"
    )
    assert not any(parameter.requires_grad for parameter in teacher.parameters()), (
        "a parameter of the teacher is trainable"
    )
    repeated = teacher(batch)
    for (name, a), (_, b) in zip(named_tensors(outputs), named_tensors(repeated), strict=True):
        assert torch.equal(a, b), f"'{name}' differs between two calls"
    # Outputs such as votes have no gradient.
    if "logits" in outputs:
        _check_gradient(teacher, batch, differentiable)


def _check_gradient(teacher: Teacher, batch: Batch, differentiable: bool) -> None:
    key = next(key for key, value in batch.items() if _is_real_input(value))
    inputs = batch | {key: batch[key].clone().requires_grad_()}
    if not differentiable:
        try:
            teacher(inputs, grad=True)
        except ValueError:
            return
        raise AssertionError(
            "grad=True is accepted by a teacher without gradients. Expected a ValueError"
        )
    logits = teacher(inputs, grad=True)["logits"]
    assert torch.autograd.grad(logits.sum(), inputs[key])[0].abs().sum() > 0, (
        "grad=True gives no gradient to the input"
    )


def _is_real_input(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
