"""What a teacher answered, on disk: shards of rows by sample and view, and a manifest that says of which teacher and data they are."""
