"""Text from outside as it may be shown on a terminal."""

from __future__ import annotations

import re

# C0 and C1 controls but for line ends and tabs, marks that turn the direction of writing, and lone
# surrogates, which no terminal can be sent.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Escape control characters, so that text from outside cannot control a terminal.

    Args:
        text: any text.

    Returns:
        The text with each control character but line ends and tabs as ``\x1b`` or ``\u202e``.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """

    def escaped(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return CONTROL.sub(escaped, text)
