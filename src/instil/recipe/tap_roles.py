"""Errors in the roles of taps: a role that nothing reads would change nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from instil import catalogue
from instil.cards.closest import did_you_mean
from instil.cards.nested_texts import nested_texts

COMMON_ROLES = frozenset({"embedding", "features", "head", "hidden_states", "logits"})
"""Roles of most recipes, for which the other methods of the catalogue are not imported."""
UNDECLARED_KINDS = ("scheme", "task", "teacher")
"""Kinds of methods that read roles without a declaration."""


def tap_errors(
    networks: Iterable[tuple[Mapping[str, Any], str]],
    methods: Collection[tuple[str, str, dict[str, Any], str]],
) -> Iterator[str]:
    """Yield one message for each tapped role that no method reads.

    Args:
        networks: section and recipe path of each network.
        methods: kind, name, options and recipe path of each method of the recipe.
    """
    unusual: list[tuple[str, str]] = []
    for section, path in networks:
        unusual += [(role, path) for role in _tapped(section) if role not in COMMON_ROLES]
    if not unusual or _has_foreign_readers(methods):
        return
    # The option of a method may name a role, such as that of a balance.
    named = {text for _, text in nested_texts([options for _, _, options, _ in methods])}
    roles = catalogue.roles_read()
    for role, path in unusual:
        if role not in roles and role not in named:
            yield (
                f"{path}.taps.{role}: unknown role. Expected a role that an objective, scheme or "
                f"metric reads, such as features or embedding.{did_you_mean(role, sorted(roles))}"
            )


def _tapped(section: Mapping[str, Any]) -> Collection[str]:
    """Return the roles of a section's taps."""
    taps = section.get("taps")
    return taps if isinstance(taps, Mapping) else ()


def _has_foreign_readers(methods: Iterable[tuple[str, str, dict[str, Any], str]]) -> bool:
    """Whether a method of other code may read roles that it does not declare."""
    for kind, name, _, _ in methods:
        if kind in UNDECLARED_KINDS and name not in catalogue.files(kind):
            return True
    return False
