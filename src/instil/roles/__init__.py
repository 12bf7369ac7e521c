"""Roles of network outputs: shared roles, alternatives to logits, and deferred values."""

from instil.roles.consumer import RoleConsumer
from instil.roles.dense_head import DenseHead
from instil.roles.lazy_outputs import LazyOutputs
from instil.roles.query_decoder import QueryDecoder
from instil.roles.resolution import (
    ExplainsMissingRoles,
    Needs,
    RejectsRoles,
    resolve_needs,
)
from instil.roles.signals import (
    IMAGE_TOKENS,
    PADDED,
    SHARED_ROLES,
    SIGNALS,
    Projection,
    Sampled,
    Top,
)

__all__ = [
    "IMAGE_TOKENS",
    "PADDED",
    "SHARED_ROLES",
    "SIGNALS",
    "DenseHead",
    "ExplainsMissingRoles",
    "LazyOutputs",
    "Needs",
    "Projection",
    "QueryDecoder",
    "RejectsRoles",
    "RoleConsumer",
    "Sampled",
    "Top",
    "resolve_needs",
]
