"""A fixed teacher, one student; without a teacher, the student alone."""

from __future__ import annotations

from collections.abc import Iterator

from instil.core import Batch, Card, Scheme, Update


class Offline(Scheme):
    """The student learns from a teacher that does not change (Hinton et al. 2014, section 2)."""

    card = Card("Offline distillation", "https://arxiv.org/abs/1503.02531", "NIPS Workshop", 2014, source="offline")

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compare(batch)
