"""The training loop: batches, steps, schedules, evaluation and checkpoints."""
