"""Forward or reverse KL, token by token, by where student and teacher are apart; in constant memory."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from instil.core import Batch, Card, Positive
from instil.functional.tokens.divergence import reduced_tokens, token_divergence
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.terms import Term, adaptive_kl
from instil.objectives.bases.token_objective import TokenObjective, Vocabulary

Mass = Annotated[float, Gt(0), Le(1)]


def akl_loss(
    student: Signal,
    teacher: Signal,
    head_mass: float = 0.5,
    temperature: float = 1.0,
    scale: bool = True,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T² (h KL(teacher || student) + (1 - h) KL(student || teacher)) of every token, h constant (Wu et al. 2025).

    h is the share of sum abs(p - q) that lies in the head: the teacher's likeliest classes as long as they have at most ``head_mass`` together,
    and always the first. Logits (..., V) or projections, in any mixture, give (...) for reduction ``none``; ``weight`` (...) is how much each
    token counts. Raises ValueError where tokens or classes differ.
    """
    values = token_divergence(student, teacher, adaptive_kl(head_mass), temperature, weight)
    return reduced_tokens(values * temperature**2 if scale else values, weight, reduction)


class AKL(TokenObjective):
    """The forward KL, which fits the teacher's head first, where the head is far off, the reverse KL where the tail is; logits or projections.

    ``head_mass``: how much probability the teacher's head has at most.
    ``temperature``: divides the logits.
    ``scale``: the factor T².
    ``vocabulary``: classes from this number on are padding, of no probability on either side.
    """

    card = Card(
        "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models",
        "https://arxiv.org/abs/2404.02657",
        "COLING",
        2025,
        source="logits",
        tasks=("classification", "language"),
        labels=("single",),
        deviations="The head is that of the authors' code: from the likeliest class down, the first always in it. DSKD counts the tail up from the "
        "least likely class instead; TAID's copy sorts the mask and not the gap.",
        equation=r"T^2 \Big( \tfrac{g_h}{g_h + g_l} \mathrm{KL}(p^t \Vert p^s) + \tfrac{g_l}{g_h + g_l} \mathrm{KL}(p^s \Vert p^t) \Big), \quad "
        r"g = \sum |p^t - p^s|",
        use="Given text and few epochs, when it is not known which direction suits the student.",
        pitfalls="Sorts the vocabulary for every token: the slowest of the family. With a long training all directions meet, as the paper shows.",
    )

    def __init__(
        self,
        head_mass: Mass = 0.5,
        temperature: Positive = 1.0,
        scale: bool = True,
        vocabulary: Vocabulary = None,
    ):
        super().__init__(temperature, scale, vocabulary)
        self.head_mass = head_mass

    def term(self, batch: Batch) -> Term:
        return adaptive_kl(self.head_mass)
