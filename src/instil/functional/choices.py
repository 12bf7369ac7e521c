"""Check of options that accept a fixed set of values."""

from __future__ import annotations

from collections.abc import Sequence

from instil.cards.closest import did_you_mean


def require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that an option has one of its values.

    Args:
        option: name of the option.
        value: value of the option.
        choices: values that the option accepts.

    Raises:
        ValueError: if ``value`` is not one of ``choices``.
    """
    if value not in choices:
        expected = f"Expected one of {', '.join(choices)}, got '{value}'."
        raise ValueError(f"{option}: unknown value. {expected}{did_you_mean(value, choices)}")
