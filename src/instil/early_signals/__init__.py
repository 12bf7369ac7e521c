"""Signals before trials: cheap measurements of teacher, student and data before any training."""
