"""Recorded teacher outputs on disk: shards of rows by sample and view, and a manifest."""
