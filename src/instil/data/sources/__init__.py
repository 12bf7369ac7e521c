"""Data sources: one file each, with a function of the same name that returns ``Splits``."""
