"""Roles of network outputs: shared roles, alternatives to logits, and deferred values."""

from instil.roles.lazy_outputs import LazyOutputs
from instil.roles.signals import SHARED_ROLES, SIGNALS, Projection, Sampled, Top

__all__ = ["SHARED_ROLES", "SIGNALS", "LazyOutputs", "Projection", "Sampled", "Top"]
