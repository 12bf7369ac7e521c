"""Warnings of the command line: one line for those of this package."""

from __future__ import annotations

import warnings

import instil
from instil.cli.warning_lines import short_warnings


def test_only_warnings_of_the_package_are_shortened() -> None:
    default = warnings.formatwarning
    with short_warnings():
        own = warnings.formatwarning("slow", UserWarning, instil.__file__, 3)
        other = warnings.formatwarning("old", UserWarning, __file__, 3)
    assert own == "Warning: slow\n"
    assert __file__ in other
    assert warnings.formatwarning is default
