"""The six ideas: Batch and Outputs, Net, Teacher, Objective, Scheme with its Updates, Card."""

from instil.core.batch import (
    SHARED_ROLES,
    UNLABELLED,
    Batch,
    Outputs,
    first,
    full,
    items,
    mean,
    normal,
    nothing,
    passed,
    size,
    uniform,
)
from instil.core.card import Card, NonNegative, Positive, Schedule, at_progress, closest
from instil.core.lazily import Lazily
from instil.core.net import Call, Net, as_net, plain_call
from instil.core.objective import Average, LabelObjective, Objective, Weighting
from instil.core.objectives import Balance, Gather, Objectives, Update
from instil.core.scheme import Scheme, Trial, dry
from instil.core.signals import SIGNALS, Projection, Sampled, Top
from instil.core.teacher import Teacher
from instil.core.uncounted import (
    drop_gradient,
    drop_unlabelled_gradient,
    every_item_counts,
    replace_invalid,
    replace_invalid_outputs,
    replace_uncounted,
)

__all__ = [
    "SHARED_ROLES",
    "SIGNALS",
    "UNLABELLED",
    "Average",
    "Balance",
    "Batch",
    "Call",
    "Card",
    "Gather",
    "LabelObjective",
    "Lazily",
    "Net",
    "NonNegative",
    "Objective",
    "Objectives",
    "Outputs",
    "Positive",
    "Projection",
    "Sampled",
    "Schedule",
    "Scheme",
    "Teacher",
    "Top",
    "Trial",
    "Update",
    "Weighting",
    "as_net",
    "at_progress",
    "closest",
    "drop_gradient",
    "drop_unlabelled_gradient",
    "dry",
    "every_item_counts",
    "first",
    "full",
    "items",
    "mean",
    "normal",
    "nothing",
    "passed",
    "plain_call",
    "replace_invalid",
    "replace_invalid_outputs",
    "replace_uncounted",
    "size",
    "uniform",
]
