"""API keys in environment variables."""

from __future__ import annotations

import os
import re

SECRET_PREFIX = re.compile(r"(sk|pk|hf|gsk|ghp|xai|r8|key)[-_]|AKIA[A-Z0-9]|AIza")
"""Prefixes of the keys of common services."""


def variable_name(name: str) -> str:
    """Check that a text is the name of an environment variable, not a key itself.

    Args:
        name: name of the variable.

    Returns:
        The same name.

    Raises:
        ValueError: for any other text, which the message does not show.
    """
    is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None
    looks_secret = SECRET_PREFIX.match(name) is not None or (
        len(name) >= 20 and re.search("[a-z]", name) and re.search("[0-9]", name)
    )
    if is_name and (name in os.environ or not looks_secret):
        return name
    raise ValueError(
        "key: Expected the name of an environment variable, such as INSTIL_REMOTE_KEY, got another"
        f" text of {len(name)} characters (not shown: it may be the key itself). Put the key into"
        " the variable and pass the name of the variable"
    )


def read_key(variable: str) -> str:
    """Read a key from an environment variable.

    Args:
        variable: name of the variable.

    Returns:
        The key without the line end that files and shells leave; empty if the variable is not set.

    Raises:
        ValueError: if the key has a character that no header can hold.
    """
    secret = os.environ.get(variable, "").strip()
    for position, character in enumerate(secret, start=1):
        if not "!" <= character <= "~":
            raise ValueError(
                f"key: character {position} of the {len(secret)} in the environment variable "
                f"{variable} is not allowed in a key. Expected ASCII letters, digits and symbols "
                "without spaces. Copy the key again"
            )
    return secret
