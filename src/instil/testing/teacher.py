"""What a teacher promises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from instil.core import Batch, Teacher
from instil.testing.samples import named_tensors


def check_teacher(make: Callable[[], Teacher], batch: Batch, differentiable: bool = True) -> None:
    """Every contract of a teacher: in eval mode for good, no graph unless asked, the same answer twice, nothing of it trained.

    ``differentiable``: whether it can be asked for a graph; one that cannot refuses.
    """
    teacher = make()
    nn.ModuleList([teacher]).train()
    assert not any(part.training for part in teacher.modules()), (
        "train() of its parent put the teacher in train mode"
    )
    outputs = teacher(batch)
    assert all(not tensor.requires_grad for _, tensor in named_tensors(outputs)), (
        "the outputs carry a graph without grad=True"
    )
    assert not any(parameter.requires_grad for parameter in teacher.parameters()), (
        "a parameter of the teacher can be trained"
    )
    for (name, a), (_, b) in zip(
        named_tensors(outputs), named_tensors(teacher(batch)), strict=True
    ):
        assert torch.equal(a, b), f"'{name}' differs between two calls"
    if "logits" not in outputs:  # answers, such as votes, that have no gradient
        return
    key = next(
        key
        for key, value in batch.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim
    )
    asked = batch | {key: batch[key].clone().requires_grad_()}
    if not differentiable:
        try:
            teacher(asked, grad=True)
        except ValueError:
            return
        raise AssertionError("asked for a graph that it cannot give, the teacher does not refuse")
    logits = teacher(asked, grad=True)["logits"]
    assert torch.autograd.grad(logits.sum(), asked[key])[0].abs().sum() > 0, (
        "grad=True gives no gradient to the input"
    )
