"""Schemes with a fixed teacher: how the student is trained by it."""
