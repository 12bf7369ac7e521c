"""Forecast of the memory of a training on several processes, from configurations of models."""
