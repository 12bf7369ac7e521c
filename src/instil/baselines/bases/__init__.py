"""Base class of baselines, and the interface through which they train a student."""

from instil.baselines.bases.baseline import Baseline
from instil.baselines.bases.student_training import StudentTraining

__all__ = ["Baseline", "StudentTraining"]
