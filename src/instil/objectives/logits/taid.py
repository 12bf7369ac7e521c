"""A teacher that moves from the student to itself while the student follows, of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor

from instil.core import Batch, Card, NonNegative, Outputs, Positive, size
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, interpolated_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Share = Annotated[float, Ge(0), Le(1)]


def taid_loss(
    student: Signal,
    teacher: Signal,
    time: float | Tensor = 1.0,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² KL(softmax((1 - time) z_s + time z_t) || student) of every token, the student in the target constant (Shing et al. 2025).

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, interpolated_kl(time), temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


def next_time(
    time: Tensor,
    momentum: Tensor,
    before: Tensor,
    loss: Tensor,
    floor: Tensor,
    end: float,
    rate: float,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Time and momentum after a step (Shing et al. 2025, Algorithm 1): the faster the loss falls, the further; at least to ``floor``.

    ``before`` is the loss of the step before, infinite where there was none, after which time stands still.
    """
    change = (before - loss) / (before + 1e-15)
    moved = smoothing * momentum + (1 - smoothing) * change
    further = torch.minimum(
        torch.maximum(floor, time + rate * moved.sigmoid() * (1 - time)), time.new_tensor(end)
    )
    first = before.isinf()
    return torch.where(first, time, further), torch.where(first, momentum, moved)


class TAID(TokenObjective):
    """forward_kl to a mixture of both sides' logits, in which the teacher's share grows with the training; logits (..., V) or projections.

    ``start``, ``end``: the teacher's share in the first step and at the end; in between it is at least on the line.
    ``rate``: how far a step goes beyond the line at most; 0: the line alone.
    ``smoothing``: how much of its earlier changes is kept in the change of the loss.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer in Language Models",
        "https://arxiv.org/abs/2501.16937",
        "ICLR",
        2025,
        source="logits",
        algorithms=("adaptive",),
        tasks=("classification", "language"),
        labels=("single",),
        deviations="A true KL, zero at a match; the authors' code leaves the target's entropy in, and measures the change of the loss with it.",
        equation=r"T^2 \mathrm{KL}\big(\mathrm{softmax}((1 - t) z^s + t z^t) \Vert p^s\big)",
        use="A student much smaller than the teacher, on given text: it is first asked for what it can nearly do.",
        pitfalls="The loss is scaled by about t², so it rises while t grows, although the student improves; watch another metric.",
    )

    def __init__(
        self,
        start: Share = 0.4,
        end: Share = 1.0,
        rate: NonNegative = 5e-4,
        smoothing: Annotated[float, Ge(0), Lt(1)] = 0.99,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.start, self.end, self.rate, self.smoothing = start, end, rate, smoothing
        self.time: Tensor
        self.momentum: Tensor
        self.before: Tensor
        for name, value in (
            ("time", getattr(start, "start", start)),
            ("momentum", 0.0),
            ("before", torch.inf),
        ):
            self.register_buffer(name, torch.tensor([float(value)]))
        self.seen: tuple[Any, Tensor] | None = None

    def term(self, batch: Batch) -> Divergence:
        return interpolated_kl(self.time)

    def values(self, student: Signal, teacher: Any, batch: Batch) -> Tensor:
        values = super().values(student, teacher, batch)
        self.seen = (
            student,
            values.detach(),
        )  # not state: spares ``keep`` a second pass over the vocabulary
        return values

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        mine, seen = student[self.reads["student"][0]], self.seen
        self.seen = None
        values = (
            seen[1]
            if seen is not None and seen[0] is mine
            else self.values(mine, teacher[self.reads["teacher"][0]], batch)
        )
        weight = self.weight(batch).reshape(size(batch), -1)
        progress = float(batch.get("progress", 0.0))
        summed = torch.where(weight > 0, values.reshape(weight.shape) * weight, 0.0).sum(1)
        return {
            "loss": summed,
            "count": weight.sum(1),
            "progress": torch.full_like(summed, progress),
        }

    def after_step(self, kept: dict[str, Tensor]) -> None:
        """Time moves with the loss of the whole step."""
        if not kept or not len(kept["loss"]):
            return
        loss = (kept["loss"].sum() / kept["count"].sum().clamp_min(1)).to(self.time)
        floor = self.start + (self.end - self.start) * kept["progress"][:1].to(self.time)
        time, momentum = next_time(
            self.time, self.momentum, self.before, loss, floor, self.end, self.rate, self.smoothing
        )
        self.time.copy_(time)
        self.momentum.copy_(momentum)
        self.before.copy_(loss.expand(1))
