"""Writes ``tests/style_debt.json``, the violations that are still there.

Run ``python -m tools.style_debt`` after some have been removed.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.test_style_rules import PACKAGES, violations

DEBT_FILE = Path(__file__).parents[1] / "tests" / "style_debt.json"

if __name__ == "__main__":
    debt = {package.stem: dict(sorted(violations(package).items())) for package in PACKAGES}
    debt = {package: rules for package, rules in debt.items() if rules}
    DEBT_FILE.write_text(json.dumps(debt, indent=1, sort_keys=True) + "\n")
