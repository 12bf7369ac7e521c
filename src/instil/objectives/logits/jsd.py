"""Meet the teacher in between: the generalised Jensen-Shannon divergence of tokens, in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor

from instil.core import Batch, Card, Positive, Schedule
from instil.functional.tokens.divergence import reduced_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Term, forward_kl, jsd, reverse_kl, times
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Share = Annotated[float, Ge(0), Le(1)]


def jsd_term(beta: float, continuous: bool) -> Term:
    """The divergence, over beta (1 - beta) if ``continuous``. Raises ValueError for a beta at which it is zero whatever the student says."""
    if not continuous:
        if not 0 < beta < 1:
            limit = "forward_kl" if beta == 0 else "reverse_kl"
            raise ValueError(
                f"beta is {beta}, where the divergence is 0 for any student; take {limit}, or continuous=True, which has that limit"
            )
        return jsd(beta)
    if beta in (0, 1):
        return reverse_kl if beta else forward_kl
    return times(jsd(beta), 1 / (beta * (1 - beta)))


def jsd_loss(
    student: Signal,
    teacher: Signal,
    beta: float = 0.5,
    continuous: bool = False,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² (beta KL(teacher || m) + (1 - beta) KL(student || m)), m = beta teacher + (1 - beta) student (Agarwal et al. 2024, section 2).

    Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each token counts.
    Raises ValueError where tokens or classes differ, and for beta 0 or 1 unless ``continuous``.
    """
    values = token_divergence(student, teacher, jsd_term(beta, continuous), temperature, weight)
    return reduced_tokens(values * temperature**2 if scale else values, weight, reduction)


class JSD(TokenObjective):
    """Both sides are compared with a mixture of them, so that the loss stays finite whatever either holds impossible; logits or projections.

    ``beta``: the teacher's share of the mixture.
    ``continuous``: divides by beta (1 - beta), so that beta 0 is forward_kl, beta 1 is reverse_kl, and nothing jumps in between.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "On-Policy Distillation of Language Models: Learning from Self-Generated Mistakes",
        "https://arxiv.org/abs/2306.13649",
        "ICLR",
        2024,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="TRL and Liger have forward KL for beta 0 and reverse KL for beta 1, a jump: the formula is 0 there, and 0.001 beside it is a "
        "thousandth of them. Here the ends are an error, or the limits of the divergence over beta (1 - beta) with continuous=True. "
        "DistiLLM's and KDFlow's parameter is the student's share, 1 - beta.",
        equation=r"T^2 \big( \beta \mathrm{KL}(p^t \Vert m) + (1 - \beta) \mathrm{KL}(p^s \Vert m) \big), \quad m = \beta p^t + (1 - \beta) p^s",
        use="Between language models, above all on text of the student's own; a small beta behaves like forward_kl, a large one like reverse_kl.",
        pitfalls="It is bounded (by log 2 at beta 0.5) and small near the ends: without continuous=True a change of beta is a change of the learning "
        "rate as well.",
    )

    def __init__(
        self,
        beta: Share = 0.5,
        continuous: bool = False,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        if not isinstance(beta, Schedule):
            jsd_term(beta, continuous)
        self.beta, self.continuous = beta, continuous

    def term(self, batch: Batch) -> Term:
        return jsd_term(self.beta, self.continuous)
