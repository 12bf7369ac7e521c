"""Schemes that train a student to resist adversarial attacks."""
