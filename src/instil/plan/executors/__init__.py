"""Executors of the trainings of a plan: this process, several processes, or a Ray cluster."""

from instil.plan.executors.executor import Executor
from instil.plan.executors.local import LocalExecutor

__all__ = ["Executor", "LocalExecutor"]
