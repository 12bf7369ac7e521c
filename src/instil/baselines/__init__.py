"""Baselines: trainings of the student that distillation must beat, one per file."""
