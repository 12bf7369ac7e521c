"""Capacity gap between teacher and student."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from instil.core import Batch, side_effect_free


def parameter_ratio(student: nn.Module, teacher: nn.Module) -> float | None:
    """Parameters of the teacher as a multiple of those of the student; None without parameters.

    Args:
        student: the student.
        teacher: the teacher, or a group of teachers.
    """
    num_student = sum(parameter.numel() for parameter in student.parameters())
    num_teacher = sum(parameter.numel() for parameter in teacher.parameters())
    return num_teacher / num_student if num_student and num_teacher else None


def operation_ratio(student: nn.Module, teacher: nn.Module, batch: Batch) -> float | None:
    """Multiply-adds of the teacher as a multiple of those of the student.

    Args:
        student: the student.
        teacher: the teacher, or a group of teachers.
        batch: batch that both networks read.

    Returns:
        Ratio; None for a network without counted operations.
    """
    operations = [_num_operations(net, batch) for net in (student, teacher)]
    num_student, num_teacher = operations
    return num_teacher / num_student if num_student and num_teacher else None


def _num_operations(net: nn.Module, batch: Batch) -> int:
    with side_effect_free(net), _OperationCounter() as counter:
        net(batch)
    return int(counter.num_operations)


class _OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of convolutions, matrix products and fused attention.

    ``FlopCounterMode`` also tracks modules, which fails for a network without gradients.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        result = func(*args, **options)
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.num_operations += formula(*args, **options, out_val=result)
        return result
