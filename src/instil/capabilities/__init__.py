"""Optional capabilities of methods: protocols that are checked with ``isinstance``.

A method has a capability if it defines its methods; it inherits from nothing. Properties without
code of their own are tags of the card (``instil.cards.Tag``).
"""

from instil.capabilities.objectives import (
    Calibrated,
    CountsLabels,
    GivesRealTargets,
    GivesSoftTargets,
)
from instil.capabilities.schemes import (
    CarriesMemory,
    EvaluatesRobustness,
    FiltersTeacherSequences,
    GeneratesText,
    Perturbation,
    PreparesSteps,
    RetokenizesTexts,
    ServesStudent,
    SynthesizesImages,
    TrainsOtherStudents,
    VerifiesTexts,
)
from instil.capabilities.sharding import RestrictsSharding
from instil.capabilities.teachers import AccountsPrivacy, Precomputes
from instil.roles import ExplainsMissingRoles, RejectsRoles

__all__ = [
    "AccountsPrivacy",
    "Calibrated",
    "CarriesMemory",
    "CountsLabels",
    "EvaluatesRobustness",
    "ExplainsMissingRoles",
    "FiltersTeacherSequences",
    "GeneratesText",
    "GivesRealTargets",
    "GivesSoftTargets",
    "Perturbation",
    "Precomputes",
    "PreparesSteps",
    "RejectsRoles",
    "RestrictsSharding",
    "RetokenizesTexts",
    "ServesStudent",
    "SynthesizesImages",
    "TrainsOtherStudents",
    "VerifiesTexts",
]
