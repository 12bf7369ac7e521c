"""A fixed teacher, one student; without a teacher, the student alone."""

from __future__ import annotations

from collections.abc import Iterator

from instil.core import Batch, Card, Scheme, Update


class Offline(Scheme):
    """The student learns from a teacher that does not change (Hinton et al. 2014, section 2; the paper has no algorithm box)."""

    card = Card(
        "Distilling the knowledge in a neural network",
        "https://arxiv.org/abs/1503.02531",
        "NIPS Workshop",
        2014,
        source="offline",
        equation=r"\min_s \sum_i w_i \mathcal{L}_i(s(x), t(x), y)",
        use="The first to try: a teacher that is there, or that is trained first, and any objectives. Without a teacher it is the student alone, by "
        "which every gain is measured.",
        pitfalls="A teacher that has learnt the training samples by heart says little more of them than their labels: give it further samples, "
        "without labels, or augmented ones. Student and teacher see one view of each sample.",
    )

    def step(self, batch: Batch) -> Iterator[Update]:
        yield self.compute_losses(batch)
