"""The six ideas: Batch and Outputs, Net, Teacher, Objective, Scheme with its Updates, Card."""

from instil.core.batch import (
    SHARED_ROLES,
    UNLABELLED,
    Batch,
    Outputs,
    batch_size,
    first_tensor,
    graph_preserving_zero,
    inverse_cdf_sample,
    item_weights,
    keyed_normal,
    keyed_uniform,
    mean,
    to_float32,
)
from instil.core.card import Card, NonNegative, Positive, Schedule, at_progress, closest
from instil.core.lazy_outputs import LazyOutputs
from instil.core.net import Call, Net, as_net, plain_call
from instil.core.objective import Average, LabelObjective, Objective, Weighting
from instil.core.objectives import Balance, Gather, Objectives, Update
from instil.core.scheme import Perturbation, Scheme, side_effect_free
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
    "LazyOutputs",
    "Net",
    "NonNegative",
    "Objective",
    "Objectives",
    "Outputs",
    "Perturbation",
    "Positive",
    "Projection",
    "Sampled",
    "Schedule",
    "Scheme",
    "Teacher",
    "Top",
    "Update",
    "Weighting",
    "as_net",
    "at_progress",
    "batch_size",
    "closest",
    "drop_gradient",
    "drop_unlabelled_gradient",
    "every_item_counts",
    "first_tensor",
    "graph_preserving_zero",
    "inverse_cdf_sample",
    "item_weights",
    "keyed_normal",
    "keyed_uniform",
    "mean",
    "plain_call",
    "replace_invalid",
    "replace_invalid_outputs",
    "replace_uncounted",
    "side_effect_free",
    "to_float32",
]
