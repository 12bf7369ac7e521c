"""Adapters for divergences of tokens: whole vocabularies, top K with a tail, sampled tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.tokens.heads import Signal
from instil.functional.tokens.support import Support
from instil.objectives.logits.akl import akl_loss
from instil.objectives.logits.forward_kl import forward_kl_loss
from instil.objectives.logits.jsd import jsd_loss
from instil.objectives.logits.opd import prefix_weights
from instil.objectives.logits.reverse_kl import reverse_kl_loss
from instil.objectives.logits.skewed_forward_kl import skewed_forward_kl_loss
from instil.objectives.logits.skewed_reverse_kl import skewed_reverse_kl_loss
from instil.objectives.logits.symmetric_kl import symmetric_kl_loss
from instil.objectives.logits.taid import next_time, taid_loss
from instil.objectives.logits.top_k import DivergenceName, top_k_loss
from instil.objectives.logits.top_k_ranking import PairwiseLoss, top_k_ranking_loss
from instil.objectives.logits.tvd import tvd_loss
from instil.roles import Top
from tests.golden.cases import Case

Answer = tuple[Tensor, dict[str, Tensor]]


def sides(case: Case) -> tuple[Tensor, Tensor]:
    return case["student.logits"], case["teacher.logits"]


def temperature(case: Case) -> float:
    return float(case.option("temperature", case.option("kd_temperature", 1.0)))


def counted(case: Case, like: Tensor) -> Tensor:
    """Return 1 for the tokens (...) with a target."""
    return (
        (case["target"] != UNLABELLED).to(like.dtype) if "target" in case else torch.ones_like(like)
    )


def scaled(case: Case) -> bool:
    """Whether the case multiplies by T²."""
    return case.mentions("times T^2", "times tau^2") and not case.mentions("no T^2")


def answer(case: Case, values: Tensor) -> Answer:
    """Return values (...) at temperature 1, summed, averaged or per token as in the case."""
    weight = counted(case, values)
    values = values * temperature(case) ** 2 if scaled(case) else values
    total, kind = torch.where(weight > 0, values * weight, 0.0).sum(), case.option("reduction")
    tokens = (
        {"per_token": values if values.shape == case["per_token"].shape else values.mT}
        if "per_token" in case
        else {}
    )
    if kind == "sum" or (
        kind is None
        and case.mentions(
            "sum over vocabulary and unmasked tokens;",
            "summed over vocabulary and unmasked tokens;",
        )
    ):
        return total, tokens
    if kind == "sum" or "SUM over" in case.reduction:
        return total, tokens
    mean = total / weight.sum()
    return (mean / case["student.logits"].shape[-1] if kind == "mean" else mean), tokens


def with_entropy(case: Case) -> Tensor | float:
    """Entropy of the teacher (...) for cross-entropies, None for a true KL divergence."""
    source = case.source
    if "cross-entropy" in case.formula or "torchtune" in source or "distillm/losses.py" in source:
        return entropy((case["teacher.logits"] / temperature(case)).log_softmax(-1))
    return 0.0


def entropy(log_probability: Tensor) -> Tensor:
    return torch.special.entr(log_probability.exp()).sum(-1)


def forward_kl(case: Case) -> Answer:
    if case.option("reverse", False):
        return reverse_kl(case)
    return answer(
        case,
        forward_kl_loss(*sides(case), temperature(case), False, reduction="none")
        + with_entropy(case),
    )


def reverse_kl(case: Case) -> Answer:
    case.ignore("reverse")
    return answer(case, reverse_kl_loss(*sides(case), temperature(case), False, reduction="none"))


def symmetric_kl(case: Case) -> Answer:
    forward = case.option(
        "sym_kd_ratio", 1 - case.option("lam", 0.9) if "lam" in case.options else 0.5
    )
    values = symmetric_kl_loss(*sides(case), forward, temperature(case), False, reduction="none")
    return answer(case, values + forward * with_entropy(case))


def js(case: Case) -> Answer:
    """``lam`` is the share of the student."""
    student, teacher = sides(case)
    share = 1 - case.option("lam", case.option("beta", 0.5))
    if "1e-9" not in case.formula:
        return answer(
            case,
            jsd_loss(student, teacher, share, False, temperature(case), False, reduction="none"),
        )
    return answer(case, jsd_with_epsilon(student, teacher, temperature(case)))


def jsd_with_epsilon(student: Tensor, teacher: Tensor, t: float, epsilon: float = 1e-9) -> Tensor:
    """JSD plus the first-order effect of 1e-9 inside the logarithms.

    The code adds it to p, q and m and does not normalise them again.
    """
    values = jsd_loss(student, teacher, 0.5, False, t, False, reduction="none")
    p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)
    m = (p + q) / 2
    more = (p * (epsilon / p).log1p() + q * (epsilon / q).log1p()) / 2 - m * (epsilon / m).log1p()
    return values + more.sum(-1)


def gkd_jsd(case: Case) -> Answer:
    """With beta 0 and 1 the KL divergences, where the formula is 0."""
    beta = case.option("beta", 0.5)
    values = jsd_loss(
        *sides(case), beta, beta in (0, 1), temperature(case), False, reduction="none"
    )
    return answer(case, values)


def skewed_forward_kl(case: Case) -> Answer:
    skew = case.option("lam", case.option("skew_lambda", 0.1))
    return answer(
        case,
        skewed_forward_kl_loss(*sides(case), skew, temperature(case), False, reduction="none")
        + with_entropy(case),
    )


def skewed_reverse_kl(case: Case) -> Answer:
    skew = case.option("lam", case.option("skew_lambda", 0.1))
    return answer(
        case,
        skewed_reverse_kl_loss(
            *sides(case), skew, True, temperature(case), False, reduction="none"
        ),
    )


def tvd(case: Case) -> Answer:
    return answer(case, tvd_loss(*sides(case), temperature(case), False, reduction="none"))


def akl(case: Case) -> Answer:
    mass = case.option("mu", case.option("head_threshold", 0.5))
    if "ascending" not in case.formula.lower():
        return answer(
            case, akl_loss(*sides(case), mass, temperature(case), False, reduction="none")
        )
    student, teacher = (side / temperature(case) for side in sides(case))
    share = ascending_share(student, teacher, mass, sorted_gap="TAID" not in case.source)
    share = share if "not detached" in case.formula.lower() else share.detach()
    forward = forward_kl_loss(student, teacher, reduction="none") + with_entropy(case)
    return answer(
        case, share * forward + (1 - share) * reverse_kl_loss(student, teacher, reduction="none")
    )


def ascending_share(student: Tensor, teacher: Tensor, mass: float, sorted_gap: bool) -> Tensor:
    """Share of the head in the gap if the mass is counted from the least likely class.

    One code does not sort the gap.
    """
    p = teacher.softmax(-1)
    ordered, order = p.sort(-1)
    steps, gap = ordered.cumsum(-1), (p - student.softmax(-1)).abs()
    gap = gap.gather(-1, order) if sorted_gap else gap
    return (gap * (steps > mass if sorted_gap else steps >= mass)).sum(-1) / gap.sum(-1)


def taid(case: Case) -> Answer:
    """Includes the entropy of the interpolated target; without a given t, t follows the losses."""
    student, teacher = sides(case)
    outputs = {}
    if "t" in case.options:
        time = torch.tensor(case.option("t"), dtype=student.dtype)
    else:
        outputs["t"] = moved(case)
        time = outputs["t"][-1]
    values = taid_loss(student, teacher, time, temperature(case), False, reduction="none")
    mixed = torch.lerp(student.detach(), teacher, time) / temperature(case)
    loss, _ = answer(case, values + entropy(mixed.log_softmax(-1)))
    return loss, outputs


def moved(case: Case) -> Tensor:
    """Return t after each loss; steps are counted from 1."""
    start, end, steps = case.option("t_start"), case.option("t_end"), case.option("num_train_steps")
    time, momentum, before = (
        torch.tensor([value], dtype=torch.float64) for value in (start, 0.0, torch.inf)
    )
    values = []
    for step, loss in enumerate(case["losses"], case.option("first_step", 1)):
        floor = torch.full_like(time, start + (end - start) * step / steps)
        time, momentum = next_time(
            time,
            momentum,
            before,
            loss.view(1),
            floor,
            end,
            case.option("alpha"),
            case.option("beta"),
        )
        before = loss.view(1)
        values.append(time)
    return torch.cat(values)


def topk_jsd(case: Case) -> Answer:
    """The support is the teacher's for beta 0, the student's for beta 1, otherwise both."""
    ends: dict[float, tuple[DivergenceName, Support]] = {
        0: ("forward_kl", "teacher"),
        1: ("reverse_kl", "student"),
    }
    beta = case.option("beta", 0.5)
    divergence, support = ends.get(beta, ("jsd", "both"))
    beta = 0.5 if beta in ends else beta
    tail = bool(case.option("add_tail", False))
    values = top_k_loss(
        *sides(case),
        case.option("top_k"),
        divergence,
        beta,
        support,
        tail,
        temperature(case),
        False,
        reduction="none",
    )
    return answer(case, values)


def topk_kl(case: Case) -> Answer:
    """Both sides on the K classes of the teacher only."""
    divergence: DivergenceName = "reverse_kl" if case.option("reverse", False) else "forward_kl"
    tail = bool(case.option("add_tail", False))
    values = top_k_loss(
        *sides(case),
        case.option("top_k"),
        divergence,
        tail=tail,
        temperature=temperature(case),
        scale=False,
        reduction="none",
    )
    return answer(case, values)


def topk_reverse_kl(case: Case) -> Answer:
    """The case has student log-probabilities on the K classes of the teacher.

    A teacher probability of 0 marks a missing class.
    """
    if "student.topk_log_probs" not in case:
        raise NotImplementedError(
            "a top-K reverse KL of other inputs than the classes' log-probabilities"
        )
    student, teacher = case["student.topk_log_probs"], case["teacher.topk_probs"]
    there = teacher > 0
    weight = there.any(-1).to(student.dtype)
    values = reverse_kl_loss(
        student.masked_fill(~there, -torch.inf), teacher.log(), weight=weight, reduction="none"
    )
    return values.sum(), {}


def recorded(case: Case) -> tuple[Signal, Top]:
    """Return student logits and the recorded teacher, both at the temperature of the case.

    The remaining mass is then one class or none.
    """
    t = temperature(case)
    case.ignore("top_k")
    values = case["teacher.sparse_log_probs"]
    rest = torch.log1p(-values.exp().sum(-1, keepdim=True).clamp_max(1))
    rest = (
        torch.full_like(rest, -torch.inf)
        if str(case.option("missing", "tail")).upper().endswith("ZERO")
        else rest
    )
    whole = (torch.cat([values, rest], -1) / t).log_softmax(-1)
    return case["student.logits"] / t, Top(
        whole[..., :-1], case["teacher.sparse_ids"], whole[..., -1]
    )


def sparse(case: Case) -> Answer:
    divergence: DivergenceName = {
        "sparse_kl": "forward_kl",
        "sparse_jsd": "jsd",
        "sparse_tvd": "tvd",
    }[case.method]  # type: ignore[assignment]
    if divergence != "forward_kl" and str(case.option("missing", "")).upper().endswith("ZERO"):
        raise NotImplementedError(f"{case.method} with the missing mass counted as zero")
    return answer(case, top_k_loss(*recorded(case), divergence=divergence, reduction="none"))


def sparse_ranking(case: Case) -> Answer:
    """The code divides by the number of pairs without ties, over all counted tokens."""
    kind: PairwiseLoss = "hinge" if case.method == "sparse_hinge" else "logistic"
    student, teacher = recorded(case)
    values = top_k_ranking_loss(
        student, teacher, kind=kind, margin=case.option("margin"), reduction="none"
    )
    p, size = teacher.values.exp(), teacher.values.shape[-1]
    weight = counted(case, values)
    pairs = ((p[..., :, None] - p[..., None, :] > 1e-8).sum((-1, -2)) * weight).sum()
    return (values * weight).sum() * size * (size - 1) / 2 / pairs, {}


def iw_opd(case: Case) -> Answer:
    labelled = case["target"] != UNLABELLED
    log_q = case["student.logits"].div(case.option("temperature", 1.0)).log_softmax(-1)
    log_prob = log_q.gather(-1, case["target"].clamp_min(0).unsqueeze(-1)).squeeze(-1)
    gap = case["teacher.token_log_probs"] - case["rollout.token_log_probs"]
    weight = prefix_weights(gap, labelled, case.option("gamma", 1.0), case.option("epsilon", 1e-8))
    return -(weight * gap * log_prob)[labelled].sum() / labelled.sum(), {}


ADAPTERS = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "symmetric_kl": symmetric_kl,
    "js": js,
    "gkd_jsd": gkd_jsd,
    "skewed_forward_kl": skewed_forward_kl,
    "skewed_reverse_kl": skewed_reverse_kl,
    "tvd": tvd,
    "akl": akl,
    "taid": taid,
    "topk_jsd": topk_jsd,
    "topk_kl": topk_kl,
    "topk_reverse_kl": topk_reverse_kl,
    "sparse_kl": sparse,
    "sparse_jsd": sparse,
    "sparse_tvd": sparse,
    "sparse_hinge": sparse_ranking,
    "sparse_logistic_ranking": sparse_ranking,
    "iw_opd": iw_opd,
}
