"""Version of the outputs that this package computes for one recipe, data and weights."""

from __future__ import annotations

OUTPUTS_VERSION = 2
"""Raised with each change of the package after which a teacher has other outputs or weights.

Examples are another normalisation of the inputs, other masks, a repaired network or training.
Recorded outputs, cached teachers and unfinished runs of another version are not used."""
