"""Comparison of finished runs and searches: tables, statistics over tasks, and one page."""
