"""Schemes for language models that train on generated text."""
