"""Adapters for divergences with two exponents or with weights of their own per class."""

from __future__ import annotations

from instil.objectives.logits.alpha_beta import alpha_beta_loss
from instil.objectives.logits.bild import bild_loss
from instil.objectives.logits.todi import todi_loss
from tests.golden.cases import Case
from tests.golden.language import Answer, answer, sides, temperature


def abkd(case: Case) -> Answer:
    """Where an exponent or their sum is 0, the code divides by the other exponent only once."""
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


ADAPTERS = {"abkd": abkd, "todi": todi, "bild": bild}
