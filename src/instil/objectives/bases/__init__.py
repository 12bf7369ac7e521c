"""Base classes of objectives."""
