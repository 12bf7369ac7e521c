"""Temporally adaptive interpolated distillation: the target moves from student to teacher."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, Positive, batch_size, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, interpolated_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary


@check_bounds
def taid_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    time: float | Tensor = 1.0,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence from interpolated logits to the student (Shing et al. 2025).

    The target is ``softmax((1 - time) * student_logits + time * teacher_logits)``. The student is
    a constant in it.

    Args:
        student_logits: logits (..., V), or a projection (hidden states and head).
        teacher_logits: logits (..., V), or a projection.
        time: share of the teacher in the target, in [0, 1].
        temperature: softmax temperature, > 0.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the tokens or the classes differ.

    Example:
        >>> import torch
        >>> taid_loss(torch.zeros(2, 3), torch.eye(3)[:2], time=0.5)
        tensor(0.0302)
    """
    term = interpolated_kl(time)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


def next_time(
    time: Tensor,
    momentum: Tensor,
    previous_loss: Tensor,
    loss: Tensor,
    floor: Tensor,
    end: float,
    rate: float,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """Update of the interpolation time after a step (Shing et al. 2025, Algorithm 1).

    The time increases faster if the loss decreases faster. After the first step it does not change.

    Args:
        time: current share of the teacher.
        momentum: moving average of the relative decrease of the loss.
        previous_loss: loss of the previous step; infinite if there was none.
        loss: loss of this step.
        floor: lower bound of the new time.
        end: upper bound of the new time.
        rate: maximum increase, relative to the remaining share of the student.
        smoothing: decay of the moving average, in [0, 1).

    Returns:
        New time and new momentum.
    """
    # Relative to the previous loss, so that the update does not depend on the scale of the loss.
    decrease = (previous_loss - loss) / (previous_loss + 1e-15)
    new_momentum = smoothing * momentum + (1 - smoothing) * decrease
    new_time = time + rate * new_momentum.sigmoid() * (1 - time)
    new_time = torch.minimum(torch.maximum(floor, new_time), time.new_tensor(end))
    # There is no decrease at the first step, and inf minus a number must not enter the momentum.
    is_first = previous_loss.isinf()
    return torch.where(is_first, time, new_time), torch.where(is_first, momentum, new_momentum)


class TAID(TokenObjective):
    """Forward KL to a mixture of both logits, in which the teacher's share grows during training.

    Reads logits (..., V) or projections.
    """

    card = Card(
        "TAID: Temporally Adaptive Interpolated Distillation for Efficient Knowledge Transfer "
        "in Language Models",
        "https://arxiv.org/abs/2501.16937",
        "ICLR",
        2025,
        source="logits",
        algorithms=("adaptive",),
        tasks=("classification", "language"),
        labels=("single",),
        deviations="A true KL divergence, zero at a match. The authors' code includes the "
        "entropy of the target, also when it measures the change of the loss.",
        equation=r"T^2 \mathrm{KL}\big(\mathrm{softmax}((1 - t) z^s + t z^t) \Vert p^s\big)",
        use="For a student much smaller than the teacher, on given text: it starts with a "
        "target that it can nearly match.",
        pitfalls="The loss is scaled by about t², so it rises while t grows, although the "
        "student improves. Monitor another metric.",
    )

    def __init__(
        self,
        start: Annotated[float, Ge(0), Le(1), Doc("share of the teacher in the first step")] = 0.4,
        end: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc(
                "share of the teacher at the end; between start and end, linear "
                "interpolation is the lower bound"
            ),
        ] = 1.0,
        rate: Annotated[
            NonNegative, Doc("maximum adaptive increase of the share per step; 0: linear schedule")
        ] = 5e-4,
        smoothing: Annotated[
            float, Ge(0), Lt(1), Doc("decay of the moving average of loss changes")
        ] = 0.99,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature ** 2")] = True,
        vocabulary: Annotated[
            Vocabulary, Doc("number of classes without padding; None: all classes")
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.start = start
        self.end = end
        self.rate = rate
        self.smoothing = smoothing
        self.time: Tensor
        self.momentum: Tensor
        self.before: Tensor
        # `start` may be a schedule, which starts at its own `start`.
        self.register_buffer("time", torch.tensor([float(getattr(start, "start", start))]))
        self.register_buffer("momentum", torch.tensor([0.0]))
        self.register_buffer("before", torch.tensor([torch.inf]))
        self.last_values: tuple[Any, Tensor] | None = None

    def term(self, batch: Batch) -> Divergence:
        return interpolated_kl(self.time)

    def values(self, student_logits: Signal, teacher_logits: Any, batch: Batch) -> Tensor:
        values = super().values(student_logits, teacher_logits, batch)
        # A cache, not state: it saves `state_updates` a second pass over the vocabulary.
        self.last_values = student_logits, values.detach()
        return values

    def state_updates(
        self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch
    ) -> dict[str, Tensor]:
        student_logits = student_outputs[self.reads["student"][0]]
        cache = self.last_values
        self.last_values = None
        # By identity: equal values of another forward pass, such as a dry run, do not count.
        if cache is not None and cache[0] is student_logits:
            values = cache[1]
        else:
            teacher_logits = teacher_outputs[self.reads["teacher"][0]]
            values = self.values(student_logits, teacher_logits, batch)
        weight = self.weight(batch).reshape(batch_size(batch), -1)
        progress = float(batch.get("progress", 0.0))
        loss = torch.where(weight > 0, values.reshape(weight.shape) * weight, 0.0).sum(1)
        return {
            "loss": loss,
            "count": weight.sum(1),
            "progress": torch.full_like(loss, progress),
        }

    def after_step(self, rows: dict[str, Tensor]) -> None:
        """Update the time with the mean loss of the whole step."""
        if not rows or not len(rows["loss"]):
            return
        count = rows["count"].sum()
        loss = (rows["loss"].sum() / count.clamp_min(1)).to(self.time)
        floor = self.start + (self.end - self.start) * rows["progress"][:1].to(self.time)
        time, momentum = next_time(
            self.time, self.momentum, self.before, loss, floor, self.end, self.rate, self.smoothing
        )
        # A step without items has no loss to compare with the steps before and after it.
        new = {"time": time, "momentum": momentum, "before": loss.expand(1)}
        for name, value in new.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.where(count > 0, value, buffer))
