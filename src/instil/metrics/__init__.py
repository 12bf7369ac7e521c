"""Metrics that a recipe adds to the evaluation of a task; one file per metric."""
