"""JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instil.files.atomic import atomic


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all.

    Args:
        path: the file.
        value: content, with values that JSON knows.
    """
    with atomic(path) as temporary:
        text = json.dumps(value, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
