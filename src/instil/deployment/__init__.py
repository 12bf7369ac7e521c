"""The student of a finished run: loading, prediction and export."""
