"""The protocol of a training step: Net, Teacher, Objective, Objectives, Scheme and Update.

Types of batches, cards and options come from the packages below and are listed here too.
"""

from typing import NoReturn

from instil.cards import Card, NonNegative, Positive, Schedule, check_bounds
from instil.cards.removed import explain_moved
from instil.core.balance import Balance
from instil.core.objective import Objective, Weighting
from instil.core.objectives import Objectives
from instil.core.scheme import Scheme
from instil.core.teacher import Teacher
from instil.core.update import Gather, Update
from instil.items import (
    UNLABELLED,
    Average,
    Batch,
    Outputs,
    batch_size,
    first_tensor,
    item_weights,
    mean,
    to_float32,
)
from instil.taps import Call, Net, as_net, plain_call, side_effect_free

__all__ = [
    "UNLABELLED",
    "Average",
    "Balance",
    "Batch",
    "Call",
    "Card",
    "Gather",
    "Net",
    "NonNegative",
    "Objective",
    "Objectives",
    "Outputs",
    "Positive",
    "Schedule",
    "Scheme",
    "Teacher",
    "Update",
    "Weighting",
    "as_net",
    "batch_size",
    "check_bounds",
    "first_tensor",
    "item_weights",
    "mean",
    "plain_call",
    "side_effect_free",
    "to_float32",
]


def __getattr__(name: str) -> NoReturn:
    """Explain a name that has been moved or removed.

    Raises:
        ImportError: for a name that has been moved or removed.
        AttributeError: for any other name.
    """
    explain_moved(name)
    raise AttributeError(f"module 'instil.core' has no attribute '{name}'")
