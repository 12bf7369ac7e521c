"""Child process that starts or continues a search: ``-m tests.search.child ACTION FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.search.recipes import continue_search, search

if __name__ == "__main__":
    action, folder = sys.argv[1], Path(sys.argv[2])
    if action == "start":
        search(folder, over=("methods", "options"), num_trials=3)
    else:
        continue_search(folder)
