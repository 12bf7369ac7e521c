"""Schemes that train the student on synthetic images, without real data."""
