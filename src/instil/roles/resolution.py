"""Choice of the roles that a loss reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

Needs = Mapping[str, tuple[tuple[str, ...], ...]]
"""For each side, the needs; each need is a tuple of alternative roles, best first."""


@runtime_checkable
class RejectsRoles(Protocol):
    """Loss that explains why a role cannot satisfy one of its needs."""

    def rejected_roles(self) -> Mapping[str, str]:
        """Role -> reason, for the error message."""


@runtime_checkable
class ExplainsMissingRoles(Protocol):
    """Teacher that knows the remedy for a role that it does not return."""

    def missing_role_remedy(self) -> str:
        """End of the error message, such as what to record again."""


def resolve_needs(
    consumer: object, needs: Needs, present: Mapping[str, Iterable[str]], remedy: str | None
) -> dict[str, tuple[str, ...]]:
    """Choose one role for every need.

    Args:
        consumer: the loss, for the error message.
        needs: needs of each side.
        present: roles of each side's outputs.
        remedy: end of the error for a role that the teacher does not return.

    Returns:
        For each side, the chosen roles in the order of its needs.

    Raises:
        ValueError: if no role of a need is present; the message lists both. Also for a need that is
            a name instead of a tuple.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for side, alternatives in needs.items():
        roles: list[str] = []
        for need in alternatives:
            if isinstance(need, str):
                raise ValueError(
                    f"{type(consumer).__name__}.needs: '{need}' of the {side} is a name. Expected "
                    f"tuples of alternative roles. Write (('{need}',),)"
                )
            available = [role for role in need if role in present[side]]
            if not available:
                hint = remedy if side == "teacher" else None
                raise ValueError(_missing(consumer, side, need, set(present[side]), hint))
            roles.append(available[0])
        chosen[side] = tuple(roles)
    return chosen


def _missing(
    consumer: object, side: str, need: tuple[str, ...], present: set[str], remedy: str | None
) -> str:
    """Error message for a need that no role satisfies."""
    nothing = "nothing (there is no teacher)" if side == "teacher" else "nothing"
    rejected = consumer.rejected_roles() if isinstance(consumer, RejectsRoles) else {}
    reasons = [
        f"{role} cannot stand in: {rejected[role]}" for role in sorted(present & set(rejected))
    ]
    advice = remedy or f"name the module that outputs it in the {side} taps"
    if "attentions" in need and not remedy:
        eager = "attn_implementation: eager in the options of a transformers model"
        advice = f"set {eager}, or {advice}"
    return (
        f"{type(consumer).__name__} needs {' or '.join(need)} of the {side}, which outputs "
        f"{', '.join(sorted(present)) or nothing}; {'; '.join(reasons) or advice}"
    )
