"""Losses of tokens in constant memory."""
