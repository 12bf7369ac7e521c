"""Counts of rows that are left out or lack something."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Number of rows with a peculiarity, and the first of them.

    Attributes:
        counts: number of rows by peculiarity.
        first: file and line of the first row by peculiarity.
        total: number of all rows.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def add(self, name: str, where: str) -> None:
        """Count a row."""
        self.counts[name] = self.counts.get(name, 0) + 1
        self.first.setdefault(name, where)

    def merge(self, other: Tally) -> None:
        """Add the counts of later rows."""
        self.total += other.total
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
            self.first.setdefault(name, other.first[name])
