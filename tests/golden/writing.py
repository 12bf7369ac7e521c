"""Adapters for schemes that learn from texts generated during training."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.text_pairs import (
    adaptive_skew,
    likelihood,
    skewed_forward,
    skewed_reverse,
)
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.schemes.language.distillm2 import distillm2_loss, reverse_weight
from instil.schemes.language.minillm import advantages, policy_gradient_loss
from tests.golden.cases import Case
from tests.golden.logits import Answer

UNMASKED = 1e-4
"""What TRL counts an item outside the text as."""


def minillm(case: Case) -> Answer:
    if "student.logits" in case:
        there = (case["target"] != UNLABELLED).double()
        return reverse_kl_loss(
            case["student.logits"],
            case["teacher.logits"],
            case.option("kd_temperature", 1.0),
            scale=False,
            weight=there,
        )
    return _of_trl(case) if "trl" in case.source else _of_authors(case)


def _of_authors(case: Case) -> Answer:
    """Advantages include the reward of the token; whitening uses all entries with padding."""
    mask, values = (
        case["mask"],
        advantages(case["rewards"], case["mask"], case.option("gamma", 1.0), include_current=True),
    )
    if case.option("whitening", True):
        values = (values - values.mean()) * (values.var() + 1e-8).rsqrt()
    log, before = case["student.token_log_probs"], case["old_log_probs"]
    importance = case.arrays.get("importance", 1.0)
    return policy_gradient_loss(
        log, before, values, mask, importance, case.option("cliprange", 0.2)
    ), {"advantages": values}


def _of_trl(case: Case) -> Answer:
    """Discounts count from the start of the text, which changes a sum but not a mean."""
    mask, gamma = case["mask"], case.option("gamma", 1.0)
    log = case["student.token_log_probs"]
    reward = (case["teacher.token_log_probs"] - log).detach() * mask
    values = advantages(reward, mask, gamma, length_normalized=False, include_current=True)
    if case.option("length_normalization", True):
        values = values / advantages(
            mask.clamp_min(UNMASKED), mask, gamma, length_normalized=False, include_current=True
        )
    else:
        values = values * gamma ** torch.arange(mask.shape[1])
    surrogate = policy_gradient_loss(
        log, log.detach(), values, mask
    )  # the gradient is that of the value in the case
    return surrogate - surrogate.detach() - (values * log.detach() * mask).sum() / mask.sum(), {
        "advantages": values
    }


def distillm2(case: Case) -> Answer:
    """Logits are not shifted; the gradient passes through the skew."""
    texts = [
        [case[f"{side}.logits_{text}"][:, :-1].log_softmax(-1) for side in ("student", "teacher")]
        for text in ("chosen", "rejected")
    ]
    tokens = [case[f"target_{text}"][:, 1:] for text in ("chosen", "rejected")]
    skews = []
    for index, (text, token, usual) in enumerate(
        zip(texts, tokens, ("logp_logq", "logq_logp"), strict=True)
    ):
        base = case.option(f"base_alpha_{index + 1}", 0.1)
        student, teacher = (likelihood(log, token) for log in text)
        gap = teacher - student if index == 0 else student - teacher
        fixed = torch.full_like(gap, base)
        skews.append(
            fixed if case.option(usual) is None else adaptive_skew(gap, case.option(usual), base)
        )
    taught, own = ((*text, token) for text, token in zip(texts, tokens, strict=True))
    share = reverse_weight(
        case.option("global_step", 0) / case.option("max_steps", 1),
        case.option("gradual_beta", False),
    )
    loss = distillm2_loss(taught, own, torch.stack(skews, 1), share).mean()
    parts: dict[str, Tensor] = {
        "chosen_kl": skewed_forward(*taught, skews[0]),
        "rejected_kl": skewed_reverse(*own, skews[1]),
    }
    return loss, {name: value for name, value in parts.items() if name in case}


ADAPTERS = {"minillm": minillm, "distillm2": distillm2}
