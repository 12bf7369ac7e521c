"""Images that stand in for training data in data-free distillation: one kind per file."""
