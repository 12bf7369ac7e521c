"""Loss of a student that trusts a robust teacher in part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from instil.core import Batch, to_float32
from instil.functional.robust_losses import soft_label_loss


def trust(teacher_logits: Tensor, target: Tensor, beta: float = 0.1) -> Tensor:
    """Trust in the teacher: its probability of the target class to the power ``beta``.

    Args:
        teacher_logits: logits (N, C) for attacked images.
        target: class indices (N,).
        beta: exponent, >= 0.

    Returns:
        (N,) in [0, 1].
    """
    log_probs = to_float32(teacher_logits).log_softmax(-1)
    # A power computed from the logarithm, which stays exact for probabilities that would underflow.
    return (beta * log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)).exp()


def iad_loss(
    attacked_logits: Tensor,
    clean_logits: Tensor,
    teacher_logits: Tensor,
    trusted: Tensor,
    temperature: float = 1.0,
    partial: bool = False,
) -> Tensor:
    """Introspective adversarial distillation loss (Zhu et al. 2022).

    Sum of the divergence from the teacher's soft labels and, with the weight 1 - ``trusted``, the
    divergence from the student's own soft labels for the clean image. As published, gradients also
    reach the latter.

    Args:
        attacked_logits: student logits (N, C) for attacked images.
        clean_logits: student logits (N, C) for clean images.
        teacher_logits: (N, C).
        trusted: trust in the teacher (N,).
        temperature: softmax temperature of the teacher's term, > 0.
        partial: multiply the teacher's term by ``trusted``, as in the paper.

    Returns:
        One value per image (N,).

    Example:
        >>> iad_loss(torch.zeros(1, 3), torch.zeros(1, 3), torch.eye(3)[:1], torch.ones(1))
        tensor([0.1233])
    """
    teacher_term = soft_label_loss(attacked_logits, teacher_logits, temperature)
    if partial:
        teacher_term = trusted * teacher_term
    return teacher_term + (1 - trusted) * soft_label_loss(attacked_logits, clean_logits)


@dataclass(frozen=True)
class Introspection:
    """Loss of a student that trusts the robust teacher in part, with its options.

    Args:
        temperature: softmax temperature of the teacher's term.
        beta: exponent of the trust.
        answers_to: images of the teacher's soft labels.
        partial: multiply the teacher's term by the trust.
        trusting: first share of the training, in which the trust is 1.
    """

    temperature: float
    beta: float
    answers_to: str
    partial: bool
    trusting: float

    def losses(
        self,
        batch: Batch,
        attacked_logits: Tensor,
        student_logits: Tensor,
        clean_teacher_logits: Tensor,
        attacked_teacher_logits: Tensor,
        target: Tensor,
    ) -> Tensor:
        """Compute ``iad_loss`` at the progress of the training.

        Args:
            batch: batch with ``progress``.
            attacked_logits: student logits (N, C) for the attacked images.
            student_logits: student logits (N, C) for the clean images.
            clean_teacher_logits: teacher logits (N, C) for the clean images.
            attacked_teacher_logits: teacher logits (N, C) for the attacked images.
            target: class indices (N,).

        Returns:
            One value per image (N,).
        """
        trusted = trust(attacked_teacher_logits, target, self.beta)
        if float(batch.get("progress", 0.0)) < self.trusting:
            trusted = torch.ones_like(trusted)
        use_attacked = self.answers_to == "attacked"
        soft_labels = attacked_teacher_logits if use_attacked else clean_teacher_logits
        return iad_loss(
            attacked_logits, student_logits, soft_labels, trusted, self.temperature, self.partial
        )
