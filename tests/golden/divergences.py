"""Adapters for divergences with two exponents or with weights per class."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.functional.tokens.terms import TokenDistribution
from instil.objectives.logits.alpha_beta import alpha_beta_loss
from instil.objectives.logits.alphanet import clipped_alpha_divergence
from instil.objectives.logits.bdkd import bdkd_loss
from instil.objectives.logits.bild import bild_loss
from instil.objectives.logits.todi import todi_loss
from tests.golden.cases import Case
from tests.golden.language import Answer, answer, entropy, sides, temperature


def abkd(case: Case) -> Answer:
    """If an exponent or their sum is 0, the code divides by the other exponent only once."""
    alpha, beta = float(case.option("alpha")), float(case.option("beta"))
    values = alpha_beta_loss(*sides(case), alpha, beta, temperature(case), False, reduction="none")
    if alpha == 0:
        values = values * (beta or 1.0)
    elif beta == 0 or alpha + beta == 0:
        values = values * alpha
    return answer(case, values)


def todi(case: Case) -> Answer:
    beta = float(case.option("beta", 1.0))
    return answer(case, todi_loss(*sides(case), beta, temperature(case), False, reduction="none"))


def bild(case: Case) -> Answer:
    """The code computes one direction per call; the loss is the sum of both."""
    if "student_led" in case.options:
        raise NotImplementedError("one direction of bild")
    top_k = case.option("top_k", 8)
    return answer(case, bild_loss(*sides(case), top_k, temperature(case), "none"))


def bdkd(case: Case) -> Answer:
    """Form of the ABKD repository; its forward term includes the entropy of the teacher."""
    factor = float(case.option("factor", 3.0))
    student, teacher = (side / temperature(case) for side in sides(case))
    student_entropy, teacher_entropy = (
        entropy(student.log_softmax(-1)),
        entropy(teacher.log_softmax(-1)),
    )
    left_in = torch.where(teacher_entropy > student_entropy, factor, 1.0) * teacher_entropy
    return answer(case, bdkd_loss(student, teacher, factor, reduction="none") + left_in)


def alphanet(case: Case) -> Answer:
    """Surrogate of the larger divergence.

    The ABKD repository returns the larger of two means of unclipped divergences, one per batch.
    """
    if "abkd" in case.source:
        orders = (float(case.option("alpha")), float(case.option("beta")))
        means = []
        for order in orders:
            values = alpha_beta_loss(*sides(case), order, 1 - order, reduction="none")
            means.append(answer(case, values)[0])
        return torch.stack(means).amax(), {}
    student, teacher = (TokenDistribution(side / temperature(case)) for side in sides(case))
    clip = float(case.option("iw_clip", 5.0))
    divergences, surrogates = [], []
    for name, default in (("alpha_min", -1.0), ("alpha_max", 1.0)):
        order = float(case.option(name, default))
        divergence, weights = clipped_alpha_divergence(student, teacher, order, clip)
        divergences.append(divergence)
        surrogates.append(-(weights.detach() * student.log).sum(-1))
    return answer(case, _of_the_larger(divergences, surrogates))


def _of_the_larger(divergences: list[Tensor], surrogates: list[Tensor]) -> Tensor:
    """Return the surrogate of the larger divergence of each item."""
    return torch.where(divergences[0] > divergences[1], surrogates[0], surrogates[1])


ADAPTERS = {"abkd": abkd, "todi": todi, "bild": bild, "bdkd": bdkd, "alphanet": alphanet}
