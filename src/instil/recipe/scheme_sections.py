"""Sections of a recipe that describe schemes, ensembles and recorded outputs."""

from __future__ import annotations

from typing import Literal

from instil.cards import PositiveInt
from instil.recipe.base_sections import OpenSection, Section


class StoreConfig(Section):
    """Recorded teacher outputs: written by ``instil record``, read by a run without a teacher."""

    path: str
    """Folder or URL."""

    codec: Literal["exact", "float16", "top", "sampled"] = "exact"
    """Precision: ``exact``; ``float16``; ``top``, the ``size`` largest log-probabilities and the
    remaining mass; ``sampled``, ``size`` classes sampled from the teacher."""

    size: PositiveInt = 64
    """Number of classes per item for ``top`` and ``sampled``."""


class SchemeConfig(OpenSection):
    """Training scheme. Further keys are its options."""

    type: str = "offline"
    """Name of a scheme in the catalogue."""


class EnsembleConfig(OpenSection):
    """Combination of several teachers. Further keys are its options."""

    type: str = "ensemble"
    """``ensemble``, ``routed``, ``amalgamated`` or ``private_votes``."""
