"""Teachers of disjoint private data, of whom only a noisy vote is heard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from instil.core import UNLABELLED, Batch, Card, Outputs, Positive, Teacher
from instil.teachers.frozen import Frozen

Mechanism = Literal["gaussian", "laplace"]


def noise_like(
    counts: Tensor, scale: float, mechanism: Mechanism, generator: torch.Generator
) -> Tensor:
    """Independent noise for each count: ``scale`` is the standard deviation of the Gaussian or the b of the Laplace distribution."""
    if mechanism == "gaussian":
        return torch.randn(counts.shape, generator=generator, dtype=torch.float64) * scale
    one, other = (
        torch.empty(counts.shape, dtype=torch.float64).exponential_(1 / scale, generator=generator)
        for _ in range(2)
    )
    return one - other


def epsilon_of(
    questions: int,
    answers: int,
    noise: float,
    mechanism: Mechanism = "gaussian",
    threshold_noise: float | None = None,
    delta: float = 1e-5,
) -> float:
    """The epsilon of so many noisy votes, ``threshold_noise`` being that of a comparison before each question, by Rényi accounting.

    One private record changes the vote of one member: one count falls by 1 and another rises (Papernot et al. 2018, section 4.1: (a, a / noise²)
    Rényi privacy a vote), the largest count by 1 at most. No use is made of how clear the votes were.

    Raises ImportError without the extra ``privacy``.
    """
    try:
        from dp_accounting import (  # type: ignore[import-untyped]
            ComposedDpEvent,
            GaussianDpEvent,
            LaplaceDpEvent,
            SelfComposedDpEvent,
        )
        from dp_accounting.rdp import RdpAccountant  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            'accounting for privacy needs the package dp-accounting: pip install "instil[privacy]"'
        ) from error
    vote = GaussianDpEvent(noise / 2**0.5) if mechanism == "gaussian" else LaplaceDpEvent(noise / 2)
    events = [SelfComposedDpEvent(vote, answers)]
    if threshold_noise is not None:
        events.append(SelfComposedDpEvent(GaussianDpEvent(threshold_noise), questions))
    return float(RdpAccountant().compose(ComposedDpEvent(events)).get_epsilon(delta))


class PrivateVotes(Teacher):
    """The class that most members vote for after noise on their counts, as ``label`` (N,), -100 where there is no answer.

    Every training sample is asked about once, before training (``precompute``), and what was answered is remembered by ``index``. Members
    are trained on
    disjoint parts of their data.

    ``noise``: standard deviation (Gaussian) or scale (Laplace) of the noise on each count, in votes.
    ``mechanism``: the distribution of the noise.
    ``threshold``: how many votes the first class must have, after noise, for an answer; null: every question is answered.
    ``threshold_noise``: standard deviation of the noise of that comparison, in votes.
    ``answers``: at most so many questions are answered, the first ones; null: all.
    ``delta``: the budget is told for it.
    ``seed``: the noise is drawn from it; who knows it undoes the noise.
    """

    card = Card(
        "Scalable private learning with PATE",
        "https://arxiv.org/abs/1802.08908",
        "ICLR",
        2018,
        source="offline",
        algorithms=("multi-teacher", "privacy"),
        labels=("single",),
        deviations="The budget is the bound that holds for all data; the papers' smaller one, which looks at how clear the votes were, is itself "
        "private and left out. Where there is a threshold each of the allowed answers is paid for, also those that were not given. Laplace votes are "
        "those of the paper before it (arXiv 1610.05755).",
        equation=r"\hat y(x) = \arg\max_c \left( \sum_k [\arg\max z^{t_k}(x) = c] + \mathcal{N}(0, \sigma^2) \right)",
        use="The labelled data are private and the student is to be published: it sees other, public samples and one noisy vote about each.",
        pitfalls="The votes are private, and nothing else: members, their data and the seed must stay where they are, public labels and validation "
        "scores are not protected, and noise of floating-point numbers is not that of the proof. Many members are needed: the noise must be smaller "
        "than the lead of the first class.",
    )
    disjoint_training_data: ClassVar = True

    def __init__(
        self,
        members: Sequence[nn.Module],
        noise: Positive = 4.0,
        mechanism: Mechanism = "gaussian",
        threshold: Positive | None = None,
        threshold_noise: Positive = 4.0,
        answers: Annotated[int, Ge(1)] | None = None,
        delta: Annotated[float, Gt(0), Lt(1)] = 1e-5,
        seed: int = 0,
    ):
        super().__init__()
        if not members:
            raise ValueError("private votes need members")
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.noise, self.mechanism, self.threshold, self.threshold_noise = (
            noise,
            mechanism,
            threshold,
            threshold_noise,
        )
        self.answers, self.delta, self.seed = answers, delta, seed
        self.known: Tensor | None = None  # of each index the answer; -100 for none

    @torch.no_grad()
    def precompute(self, batches: Iterable[Batch]) -> None:
        """Ask about each sample once, in the order of ``batches``. Raises RuntimeError the second time: it would cost as much again."""
        if self.known is not None:
            raise RuntimeError(
                "these votes are cast: asking again would spend as much of the budget again"
            )
        found = [(batch["index"].cpu(), self.count(batch)) for batch in batches]
        index, counts = (torch.cat(parts) for parts in zip(*found, strict=True))
        if len(torch.bincount(index).nonzero()) < len(index):
            raise ValueError("a sample is there twice; each question is answered once")
        generator = torch.Generator().manual_seed(self.seed)
        label = (counts + noise_like(counts, self.noise, self.mechanism, generator)).argmax(1)
        if self.threshold is not None:
            sure = (
                counts.amax(1)
                + noise_like(counts[:, 0], self.threshold_noise, "gaussian", generator)
                >= self.threshold
            )
            label = label.where(sure, UNLABELLED)
        if self.answers is not None:
            label = label.where((label != UNLABELLED).cumsum(0) <= self.answers, UNLABELLED)
        self.questions = len(index)
        self.known = torch.full((int(index.max()) + 1,), UNLABELLED).index_copy_(0, index, label)

    def count(self, batch: Batch) -> Tensor:
        """How many members vote for each class: (N, C), float64. Raises ValueError where a member gives no logits (N, C)."""
        votes = []
        for number, member in enumerate(self.members):
            logits = member(batch).get("logits")
            if logits is None or logits.ndim != 2:
                raise ValueError(
                    f"member {number} gives no logits of one class a sample; a vote needs them"
                )
            votes.append(F.one_hot(logits.argmax(1), logits.shape[1]))
        return torch.stack(votes).sum(0).double().cpu()

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        index = batch["index"]
        if self.known is None:
            raise RuntimeError("no vote was cast: let the teacher meet the training samples first")
        if len(index) and int(index.max()) >= len(self.known):
            raise ValueError(
                f"sample {int(index.max())} was not asked about; only the training samples are"
            )
        self.known = self.known.to(index.device)
        return {"label": self.known[index]}

    def privacy_cost(self) -> dict[str, Any]:
        """What the answers cost: ``epsilon`` and ``delta``, the questions and how many were answered. Raises RuntimeError before there are any."""
        if self.known is None:
            raise RuntimeError("no vote was cast: let the teacher meet the training samples first")
        paid = self.questions if self.answers is None else min(self.questions, self.answers)
        noise = self.threshold_noise if self.threshold is not None else None
        epsilon = epsilon_of(self.questions, paid, self.noise, self.mechanism, noise, self.delta)
        return {
            "epsilon": epsilon,
            "delta": self.delta,
            "questions": self.questions,
            "answered": int((self.known != UNLABELLED).sum()),
        }
