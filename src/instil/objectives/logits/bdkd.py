"""Forward plus reverse KL of tokens, weighted by the entropies of both sides."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Positive, check_bounds
from instil.functional.tokens.divergence import reduce_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Divergence, TokenDistribution, forward_kl, reverse_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

AtLeastOne = Annotated[float, Ge(1)]


def entropy_balanced_kl(factor: float) -> Divergence:
    """Sum of both KL divergences, one of them times ``factor`` (Amara et al. 2022).

    The forward divergence has the factor where the teacher's entropy is larger, the reverse one
    where the student's is. The factors are constants for the gradient.

    Args:
        factor: weight of the emphasised divergence.

    Returns:
        Function of student and teacher distributions that returns values and gradients.
    """

    def term(student: TokenDistribution, teacher: TokenDistribution) -> tuple[Tensor, Tensor]:
        student_entropy = -torch.linalg.vecdot(student.probability, student.log)
        teacher_entropy = -torch.linalg.vecdot(teacher.probability, teacher.log)
        forward_value, forward_gradient = forward_kl(student, teacher)
        reverse_value, reverse_gradient = reverse_kl(student, teacher)
        forward = 1 + (factor - 1) * (teacher_entropy > student_entropy).to(forward_value.dtype)
        reverse = 1 + (factor - 1) * (student_entropy > teacher_entropy).to(reverse_value.dtype)
        value = forward * forward_value + reverse * reverse_value
        # In place: both gradients have the size of the vocabulary and are not needed again.
        gradient = forward_gradient.mul_(forward.unsqueeze(-1))
        return value, gradient.add_(reverse_gradient.mul_(reverse.unsqueeze(-1)))

    return term


@check_bounds
def bdkd_loss(
    student_logits: Signal,
    teacher_logits: Signal,
    factor: AtLeastOne = 3.0,
    temperature: Positive = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Balanced divergence of teacher p and student q (Amara et al. 2022).

    ``a KL(p || q) + b KL(q || p)`` for each token. ``a`` is ``factor`` where the teacher's entropy
    is larger than the student's, ``b`` where it is smaller; otherwise they are 1.

    Args:
        student_logits: student logits (..., V), or a projection (hidden states and head).
        teacher_logits: teacher logits (..., V), or a projection.
        factor: weight of the emphasised divergence, >= 1; 1 is twice the symmetric KL.
        temperature: softmax temperature, > 0, of the divergences and of the entropies.
        scale: multiply by ``temperature ** 2``.
        weight: weight of each token (...), 0 for tokens that do not count.
        reduction: ``"mean"`` over the tokens that count, or ``"none"``.

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if tokens or classes differ, or ``factor`` is below 1.

    Example:
        >>> import torch
        >>> bdkd_loss(torch.zeros(2, 3), torch.eye(3)[:2])
        tensor(0.4818)
    """
    term = entropy_balanced_kl(factor)
    values = token_divergence(student_logits, teacher_logits, term, temperature, weight)
    return reduce_tokens(values * temperature**2 if scale else values, weight, reduction)


class BDKD(TokenObjective):
    """Sum of forward and reverse KL; the entropies of both sides choose which one weighs more.

    Logits are (..., V), or projections.
    """

    card = Card(
        "BD-KD: Balancing the Divergences for Online Knowledge Distillation",
        "https://arxiv.org/abs/2212.12965",
        "arXiv",
        2022,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The paper trains the teacher together with the student (scheme mutual); this "
        "is the student's loss, for any teacher. The weights are those of the re-implementation in "
        "the ABKD repository. Its code has 3 where its comment has 2, and omits the teacher's "
        "entropy, which has no gradient. Of the paper only the abstract was "
        "available. It confirms that the two divergences are weighted per sample, but has neither "
        "the rule nor the factor.",
        equation=r"T^2 \big( a \, \mathrm{KL}(p^t \Vert p^s) + b \, \mathrm{KL}(p^s \Vert p^t) "
        r"\big), \quad (a, b) = \begin{cases} (\lambda, 1) & H(p^t) > H(p^s) \\ (1, \lambda) & "
        r"H(p^t) < H(p^s) \\ (1, 1) & \text{otherwise} \end{cases}",
        use="When the student's calibration matters. The forward divergence spreads out an "
        "overconfident student, and the reverse divergence sharpens an underconfident one.",
        pitfalls="The loss jumps by a factor where the entropies cross, so it is not a smooth "
        "function of the logits. The sum is two to four times as large as forward_kl: lower its "
        "weight.",
    )

    def __init__(
        self,
        factor: Annotated[
            AtLeastOne, Doc("weight of the emphasised divergence; the other one has weight 1")
        ] = 3.0,
        temperature: Annotated[
            Positive, Doc("softmax temperature of the divergences and of the entropies")
        ] = 1.0,
        scale: Annotated[bool, Doc("multiply the loss by temperature²")] = True,
        vocabulary: Annotated[
            Vocabulary,
            Doc(
                "number of classes without padding; later ones have probability 0 on both sides. "
                "None: all"
            ),
        ] = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.factor = factor

    def term(self, batch: Batch) -> Divergence:
        return entropy_balanced_kl(self.factor)
