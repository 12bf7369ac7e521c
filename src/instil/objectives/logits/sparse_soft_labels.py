"""Soft labels recovered from the teacher's top classes, as from a small record."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.divergences import kl_divergence
from instil.functional.logits import apply_reduction, require_same_logits
from instil.objectives.bases.logit_objective import LogitObjective

RecoveryForm = Literal["smoothing", "renormalize"]
FORMS = ("smoothing", "renormalize")


def recover_labels(teacher_probs: Tensor, k: int, form: RecoveryForm = "smoothing") -> Tensor:
    """Soft labels that keep only the ``k`` likeliest classes.

    Args:
        teacher_probs: class probabilities (..., C).
        k: number of classes to keep; all of them if there are fewer.
        form: ``"smoothing"`` spreads the rest of the probability evenly over the other classes of
            probability above 0; ``"renormalize"`` divides the kept probabilities by their sum.

    Returns:
        Probabilities (..., C).
    """
    values, index = teacher_probs.topk(min(k, teacher_probs.shape[-1]), -1)
    total = values.sum(-1, keepdim=True)
    if form == "renormalize":
        return torch.zeros_like(teacher_probs).scatter(-1, index, values / total)
    possible = teacher_probs > 0
    others = (possible.sum(-1, keepdim=True) - values.shape[-1]).clamp_min(1)
    # Rounding can make the sum of the top probabilities larger than 1.
    share = (1 - total).clamp_min(0) / others
    spread = torch.where(possible, share, 0.0)
    return spread.scatter(-1, index, values)


@check_bounds
def sparse_soft_labels_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    k: Annotated[int, Ge(1)] = 5,
    form: RecoveryForm = "smoothing",
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Distillation from sparse soft labels (Shen and Xing 2022).

    ``temperature ** 2`` times the KL divergence from the recovered labels to the student.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        k: number of teacher classes to keep, >= 1.
        form: ``"smoothing"`` (Marginal Smoothing) or ``"renormalize"`` (Marginal Re-Norm).
        temperature: softmax temperature of both sides, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or the form or the reduction is unknown.

    Example:
        >>> import torch
        >>> sparse_soft_labels_loss(torch.zeros(2, 3), torch.eye(3)[:2], k=1)
        tensor(0.1233)
    """
    require_same_logits(student_logits, teacher_logits)
    require_choice("form", form, FORMS)
    teacher_probs = (to_float32(teacher_logits) / temperature).softmax(-1)
    log_student = (to_float32(student_logits) / temperature).log_softmax(-1)
    log_target = recover_labels(teacher_probs, k, form).log()
    return apply_reduction(temperature**2 * kl_divergence(log_target, log_student), reduction)


class SparseSoftLabels(LogitObjective):
    """KD from the teacher's top classes, with the other probabilities filled in."""

    card = Card(
        "A Fast Knowledge Distillation Framework for Visual Recognition",
        "https://arxiv.org/abs/2112.01528",
        "ECCV",
        2022,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        zero_at_match=False,
        deviations="The recovered labels are those of the authors' code, which was read; the text "
        "of the paper was not available. The authors record the labels of many crops before "
        "training; here they are cut from the teacher's logits of the same view. The constant "
        "entropy of the labels is subtracted. Only classes of probability above 0 share the rest; "
        "in the code all other classes do. The code records labels at temperature 1, divides only "
        "the student's logits by its temperature, and has no factor T². At the default "
        "temperature of 1 both are the same.",
        equation=r"T^2 \, \mathrm{KL}(\hat p \Vert p^s), \quad \hat p_c = \begin{cases} p^t_c & "
        r"c \in \mathrm{top}_k \\ \frac{1 - \sum_{j \in \mathrm{top}_k} p^t_j}{C - k} & "
        r"\text{otherwise} \end{cases}",
        use="To measure the loss of information in a record of k classes, or to remove the "
        "teacher's noisy tail. The paper keeps 5 to 10 of 1000 classes.",
        pitfalls="renormalize targets probability 0 outside the k classes, so the student "
        "becomes overconfident. With a large vocabulary the even rest is far from the teacher's "
        "tail. The method top_k counts the tail as one class, and sampled_kd (Sparse Logit "
        "Sampling) has no bias.",
    )

    def __init__(
        self,
        k: Annotated[int, Ge(1), Doc("number of the teacher's classes to keep")] = 5,
        form: Annotated[
            RecoveryForm,
            Doc(
                "smoothing: spread the rest of the probability evenly; renormalize: scale "
                "the kept probabilities to sum to 1"
            ),
        ] = "smoothing",
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
        standardize: Annotated[
            bool, Doc("standardize the logits of each side over the classes first")
        ] = False,
    ):
        super().__init__(standardize)
        self.k = k
        self.form = form
        self.temperature = temperature

    def loss(self, student_logits: Tensor, teacher_logits: Tensor, batch: Batch) -> Tensor:
        return sparse_soft_labels_loss(
            student_logits, teacher_logits, self.k, self.form, self.temperature, "none"
        )
