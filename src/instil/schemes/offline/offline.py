"""Offline distillation from a fixed teacher."""

from __future__ import annotations

from collections.abc import Iterator

from instil.core import Batch, Card, Scheme, Update


class Offline(Scheme):
    """Distillation from a teacher that does not change (Hinton et al. 2014, section 2).

    Without a teacher it trains the plain student. The paper has no algorithm box.
    """

    card = Card(
        "Distilling the knowledge in a neural network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="offline",
        equation=r"\min_s \sum_i w_i \mathcal{L}_i(s(x), t(x), y)",
        use="The first scheme to try: a teacher that exists or is trained first, and any "
        "objectives. Without a teacher it trains the plain student, the baseline of every gain.",
        pitfalls="A teacher that has memorized the training samples adds little to their labels: "
        "use further samples without labels, or augmented ones. Student and teacher see the same "
        "view of each sample.",
    )

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
