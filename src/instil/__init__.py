"""Knowledge distillation for PyTorch: a teacher, a student and data in; the distilled student and the evidence out."""
