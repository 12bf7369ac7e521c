"""Schemes in which the student is its own teacher."""
