"""Contracts of all methods, shipped for methods of other packages: ``check_objective(MyLoss)``."""

from instil.testing.objective import check_objective
from instil.testing.samples import sample_outputs
from instil.testing.scheme import check_scheme
from instil.testing.task import check_task
from instil.testing.teacher import check_teacher
from instil.testing.trials import loss_and_gradient

__all__ = [
    "check_objective",
    "check_scheme",
    "check_task",
    "check_teacher",
    "loss_and_gradient",
    "sample_outputs",
]
