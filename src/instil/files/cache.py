"""Folder of files that runs and commands share."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$INSTIL_CACHE``, or ``~/.cache/instil``."""
    return Path(os.environ.get("INSTIL_CACHE") or Path.home() / ".cache" / "instil")
