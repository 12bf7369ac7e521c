"""Schemes that distil diffusion models."""
