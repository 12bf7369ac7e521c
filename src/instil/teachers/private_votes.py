"""Noisy vote of teachers that were trained on disjoint private data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from instil.core import UNLABELLED, Batch, Card, Outputs, Positive, Teacher
from instil.functional.gnmax import votes_epsilon
from instil.functional.privacy import Mechanism, noise_like, privacy_epsilon
from instil.teachers.frozen import Frozen


class PrivateVotes(Teacher):
    """Teacher whose label is the class with the most votes of its members, after noise.

    The output is ``label`` (N,), -100 for a sample without an answer. ``precompute`` collects one
    vote for each training sample before training; ``index`` identifies the samples later. The
    members are trained on disjoint parts of the private data.

    Raises:
        ValueError: if there are no members.
    """

    card = Card(
        "Scalable private learning with PATE",
        "https://arxiv.org/abs/1802.08908",
        "ICLR",
        2018,
        source="offline",
        algorithms=("multi-teacher", "privacy"),
        labels=("single",),
        tags=("disjoint_data",),
        deviations="The budget is the bound that holds for all data. The paper's smaller bound "
        "by the margins of Gaussian votes is reported next to it, without the smooth sensitivity "
        "that its publication needs. With a threshold the first bound charges each of the allowed "
        "answers, also those that were not given, and the second one the given ones. Laplace votes "
        "are those of the earlier paper (arXiv 1610.05755).",
        equation=r"\hat y(x) = \arg\max_c \left( \sum_k [\arg\max z^{t_k}(x) = c] + "
        r"\mathcal{N}(0, \sigma^2) \right)",
        use="The labelled data are private and the student will be published. It is trained on "
        "other, public samples, with one noisy vote for each.",
        pitfalls="Only the votes are private. The smaller bound depends on the private data and "
        "must not be published. Members, their data and the seed must not be "
        "published; public labels and validation scores are not protected; and floating-point "
        "noise is not the noise of the proof. Many members are needed: the noise must be smaller "
        "than the lead of the first class.",
    )

    def __init__(
        self,
        members: Sequence[nn.Module],
        noise: Annotated[
            Positive,
            Doc("standard deviation (Gaussian) or scale (Laplace) of the noise, in votes"),
        ] = 4.0,
        mechanism: Annotated[Mechanism, Doc("distribution of the noise")] = "gaussian",
        threshold: Annotated[
            Positive | None,
            Doc("votes that the first class needs, after noise, for an answer; null: no threshold"),
        ] = None,
        threshold_noise: Annotated[
            Positive,
            Doc("standard deviation of the noise in the comparison with the threshold, in votes"),
        ] = 4.0,
        answers: Annotated[
            Annotated[int, Ge(1)] | None,
            Doc("maximum number of answers; the first questions get them; null: all questions"),
        ] = None,
        delta: Annotated[
            float, Gt(0), Lt(1), Doc("delta of the privacy budget, the reported epsilon")
        ] = 1e-5,
        seed: Annotated[int, Doc("seed of the noise; anyone who has it can remove the noise")] = 0,
    ):
        super().__init__()
        if not members:
            raise ValueError("teacher: private votes need members, got none")
        self.members = nn.ModuleList(
            member if isinstance(member, Teacher) else Frozen(member) for member in members
        )
        self.noise = noise
        self.mechanism = mechanism
        self.threshold = threshold
        self.threshold_noise = threshold_noise
        self.answers = answers
        self.delta = delta
        self.seed = seed
        self.labels: Tensor | None = None
        """Answer to each index; -100 for none."""
        self.counts = torch.zeros(0, 1)
        """Numbers of votes (N, C) of the questions in their order, without noise."""
        self.is_answered = torch.zeros(0, dtype=torch.bool)
        """Which questions got an answer (N,)."""

    @torch.no_grad()
    def precompute(self, batches: Iterable[Batch]) -> None:
        """Collect one vote for each sample.

        Args:
            batches: batches with ``index``; their order is the order of the questions.

        Raises:
            RuntimeError: on the second call, which would spend the same budget again.
            ValueError: if a sample occurs twice, or no sample gets an answer.
        """
        if self.labels is not None:
            raise RuntimeError(
                "teacher: the votes are collected, and a second vote would spend the same privacy "
                "budget again. Call precompute once"
            )
        indices = []
        votes = []
        for batch in batches:
            indices.append(batch["index"].cpu())
            votes.append(self.count(batch))
        # All votes are collected before the noise: the draws must not depend on the batches.
        index = torch.cat(indices)
        counts = torch.cat(votes)
        # A second answer for a sample would exceed the budget that is reported.
        if len(torch.bincount(index).nonzero()) < len(index):
            raise ValueError(
                "teacher: a sample occurs twice. Expected each index once, because each question "
                "is answered once"
            )
        # The order of the draws, labels before the threshold, is part of the seed's meaning.
        generator = torch.Generator().manual_seed(self.seed)
        label = (counts + noise_like(counts, self.noise, self.mechanism, generator)).argmax(1)
        if self.threshold is not None:
            noise = noise_like(counts[:, 0], self.threshold_noise, "gaussian", generator)
            label = label.where(counts.amax(1) + noise >= self.threshold, UNLABELLED)
        # The first answers in the order of the data, not the most certain ones: a choice by votes
        # would cost privacy.
        if self.answers is not None:
            label = label.where((label != UNLABELLED).cumsum(0) <= self.answers, UNLABELLED)
        if not (label != UNLABELLED).any():
            raise ValueError(
                f"teacher: no sample got an answer: no class has {self.threshold:g} of"
                f" {len(self.members)} votes after noise. Expected a smaller ensemble.threshold"
            )
        self.questions = len(index)
        self.counts = counts
        self.is_answered = label != UNLABELLED
        self.labels = torch.full((int(index.max()) + 1,), UNLABELLED).index_copy_(0, index, label)

    def count(self, batch: Batch) -> Tensor:
        """Count the members' votes for each class.

        Args:
            batch: a batch of samples.

        Returns:
            Numbers of votes (N, C), float64, on the CPU.

        Raises:
            ValueError: if a member gives no logits (N, C).
        """
        votes = []
        for index, member in enumerate(self.members):
            logits = member(batch).get("logits")
            if logits is None or logits.ndim != 2:
                raise ValueError(
                    f"teacher: member {index} gives no logits (N, C). Expected classifiers of "
                    "whole samples"
                )
            votes.append(F.one_hot(logits.argmax(1), logits.shape[1]))
        # float64 on the CPU, as the noise: the result is the same on every device.
        return torch.stack(votes).sum(0).double().cpu()

    def forward(self, batch: Batch, grad: bool = False) -> Outputs:
        index = batch["index"]
        labels = self._collected_labels()
        if len(index) and int(index.max()) >= len(labels):
            raise ValueError(
                f"teacher: sample {int(index.max())} has no vote. Expected samples of the training "
                "set, which precompute has seen"
            )
        self.labels = labels.to(index.device)
        return {"label": self.labels[index]}

    def privacy_cost(self) -> dict[str, Any]:
        """Report the privacy budget that the answers cost.

        Returns:
            ``epsilon`` for all data, ``delta``, the number of ``questions`` and how many were
            ``answered``; with Gaussian noise also ``votes_epsilon`` by the margins of the votes,
            which must not be published.

        Raises:
            RuntimeError: before ``precompute``.
        """
        labels = self._collected_labels()
        paid = self.questions if self.answers is None else min(self.questions, self.answers)
        noise = self.threshold_noise if self.threshold is not None else None
        epsilon = privacy_epsilon(
            self.questions, paid, self.noise, self.mechanism, noise, self.delta
        )
        cost = {
            "epsilon": epsilon,
            "delta": self.delta,
            "questions": self.questions,
            "answered": int((labels != UNLABELLED).sum()),
        }
        if self.mechanism == "gaussian":
            cost["votes_epsilon"] = votes_epsilon(
                self.counts,
                self.is_answered,
                self.noise,
                self.delta,
                self.threshold,
                self.threshold_noise,
            )
        return cost

    def _collected_labels(self) -> Tensor:
        if self.labels is None:
            raise RuntimeError(
                "teacher: no vote was collected. Call precompute with the training samples first"
            )
        return self.labels
