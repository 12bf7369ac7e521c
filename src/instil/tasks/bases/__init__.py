"""Base classes of tasks, and the metrics that they share."""
