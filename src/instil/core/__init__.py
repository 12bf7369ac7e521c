"""The protocol of a training step: Net, Teacher, Objective, Objectives, Scheme and Update.

Types of batches, cards and options come from the packages below and are listed here too.
"""

from typing import NoReturn

from instil.cards import Card, NonNegative, Positive, Schedule
from instil.core.balance import Balance
from instil.core.net import Call, Net, as_net, plain_call
from instil.core.objective import Objective, Weighting
from instil.core.objectives import Objectives
from instil.core.scheme import Scheme, side_effect_free
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
    "first_tensor",
    "item_weights",
    "mean",
    "plain_call",
    "side_effect_free",
    "to_float32",
]

MOVED = {
    "instil.capabilities": "Perturbation",
    "instil.cards": "at_progress closest",
    "instil.functional.keyed_random": "inverse_cdf_sample keyed_normal keyed_uniform",
    "instil.items": "drop_gradient drop_unlabelled_gradient every_item_counts "
    "graph_preserving_zero replace_invalid replace_invalid_outputs replace_uncounted",
    "instil.roles": "SHARED_ROLES SIGNALS LazyOutputs Projection Sampled Top",
}
"""New module -> names that ``instil.core`` had."""


def __getattr__(name: str) -> NoReturn:
    """Explain a name that has been moved or removed.

    Raises:
        ImportError: for a name that has been moved or removed.
        AttributeError: for any other name.
    """
    if name == "LabelObjective":
        raise ImportError(
            "instil.core.LabelObjective has been removed. Derive from Objective and write "
            "items = Items(labelled=True) (instil.items.Items)."
        )
    for module, names in MOVED.items():
        if name in names.split():
            raise ImportError(f"instil.core.{name} has moved. Import it from {module}.")
    raise AttributeError(f"module 'instil.core' has no attribute '{name}'")
