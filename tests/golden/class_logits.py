"""Adapters for losses on class logits that do more than compare two softmaxes."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.core import UNLABELLED
from instil.functional.divergences import softened_kl, target_cross_entropy
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.gkl import gkl_loss
from instil.objectives.logits.mft import mft_loss
from instil.objectives.logits.mlkd import mlkd_batch_loss, mlkd_class_loss
from instil.objectives.logits.sdd import region_logits, region_weights, sdd_loss
from instil.objectives.logits.streamlined_kd import direction_loss
from instil.objectives.logits.ttm import ttm_loss
from instil.objectives.logits.uskd import uskd_loss
from instil.objectives.logits.wsld import wsld_loss, wsld_weights
from tests.golden.cases import Case
from tests.golden.logits import Answer, logits, temperature


def entropy(teacher: Tensor, softness: float) -> Tensor:
    """Difference of a soft cross-entropy to the divergence: (...) for logits (..., C)."""
    log_probability = (teacher / softness).log_softmax(-1)
    return -(log_probability.exp() * log_probability).sum(-1)


def wsld(case: Case) -> Tensor:
    student, teacher = logits(case)
    t = temperature(case)
    divergence = wsld_loss(student, teacher, case["target"], t)
    counted = case["target"] != UNLABELLED
    rest = (wsld_weights(student, teacher, case["target"]) * entropy(teacher, t))[
        counted
    ].mean() * t**2
    soft = case.option("alpha", 1.0) * (divergence + rest)
    return (
        soft + cross_entropy_loss(student, case["target"])
        if case.mentions("ce(mean)", "ce +")
        else soft
    )


def ttm(case: Case) -> Tensor:
    return transformed(case, weighted=False)


def wttm(case: Case) -> Tensor:
    return transformed(case, weighted=True)


def transformed(case: Case, weighted: bool) -> Tensor:
    gamma = case.option("gamma", case.option("ttm_l"))
    return ttm_loss(*logits(case), 1 / temperature(case) if gamma is None else gamma, weighted)


def gkl(case: Case) -> Tensor:
    """GKL and IKL; the weights of an item sum to 1 with every normalisation."""
    student, teacher = logits(case)
    t, gamma = temperature(case), case.option("gamma", 1.0)
    t2 = case.option("temperature2", case.option("T2", 1.0))
    prior = case["class_prior"] if "class_prior" in case else (teacher / t2).softmax(-1)
    normalize = "batch" if case.mentions("sum(w)") else "sample"
    if normalize == "sample" and (gamma != 1 or not case.mentions("/ n")):
        raise NotImplementedError(f"weights of '{case.reduction}' with gamma {gamma}")
    error = (
        gkl_loss(student, teacher, t, 1.0, gamma, prior, normalize)
        - softened_kl(student, teacher, t).mean()
    )
    if (
        normalize == "sample"
    ):  # the code does not divide by the sum of the weights, which is 1 up to rounding
        error = error * (prior.sum(-1).square().mean())
    soft = softened_kl(student, teacher, t).mean() + entropy(teacher, t).mean()
    return case.option("beta", 1.0) * error + case.option("alpha", 1.0) * soft


def mlkd(case: Case) -> Answer:
    t = temperature(case)
    if "student.logits_weak" in case:
        return mlkd_official(case, t)
    student, teacher = logits(case)
    if case.mentions("times t^2"):
        return softened_kl(student, teacher, t).mean() * t**2, {}
    if case.mentions("divided by c"):
        return mlkd_class_loss(student, teacher, t), {}
    if case.mentions("divided by n"):
        return mlkd_batch_loss(student, teacher, t), {}
    raise NotImplementedError(f"reduction '{case.reduction}'")


def mlkd_official(case: Case, t: float) -> Answer:
    """Whole recipe: masks of the less confident half, two strong temperatures and the weak view."""
    weak, strong = (
        (case[f"student.logits_{view}"], case[f"teacher.logits_{view}"])
        for view in ("weak", "strong")
    )
    third, fifth, second, sixth = case.option("fixed_temperatures", [3.0, 5.0, 2.0, 6.0])
    every, probability = (t, third, fifth, second, sixth), weak[1].softmax(-1)
    rows, classes = below_median(probability.amax(-1)), below_median(probability.sum(0))

    def instances(view: tuple[Tensor, Tensor], temperatures: tuple[float, ...]) -> Tensor:
        return torch.stack(
            [softened_kl(*view, each).mean() * each**2 for each in temperatures]
        ).sum()

    weight = case.option("kd_weight", 1.0)
    parts = {
        "part.ce": case.option("ce_weight", 1.0)
        * (
            cross_entropy_loss(weak[0], case["target"])
            + cross_entropy_loss(strong[0], case["target"])
        ),
        "part.kd": weight
        * (
            rows * instances(weak, every)
            + instances(strong, (t, third, fifth))
            + instances(weak, (second, sixth))
        ),
        "part.cc": weight
        * classes
        * torch.stack([mlkd_class_loss(*weak, each) for each in every]).sum(),
        "part.bc": weight
        * rows
        * torch.stack([mlkd_batch_loss(*weak, each) for each in every]).sum(),
    }
    return torch.stack(list(parts.values())).sum(), {
        name: value for name, value in parts.items() if name in case
    }


def below_median(values: Tensor) -> Tensor:
    """Return the share of values at or below their median."""
    return (values <= values.quantile(0.5)).double().mean()


def skd(case: Case) -> Tensor:
    student, teacher = logits(case)
    if "tikhonov" in case.options:
        return direction_loss(student, teacher, case.option("tikhonov"))
    if case.mentions("no t^2"):
        return softened_kl(student, teacher, temperature(case)).mean()
    raise NotImplementedError(f"reduction '{case.reduction}'")


def mft(case: Case) -> Tensor:
    t = temperature(case)
    student, teacher = logits(case)
    values = mft_loss(student, teacher, case["target"], case.option("threshold", 0.2), t, "none")
    how = case.option("reduction", "batchmean")
    totals: dict[str, Callable[[], Tensor]] = {
        "batchmean": lambda: values.sum() / len(values),
        "mean": lambda: values.mean() / student.shape[-1],
        "sum": values.sum,
    }
    if how not in totals:
        raise NotImplementedError(f"reduction '{how}'")
    return totals[how]()


def sdd(case: Case) -> Answer:
    outputs = {}
    if "student.patch_logits" in case:
        student, teacher = case["student.patch_logits"].mT, case["teacher.patch_logits"].mT
    else:
        scales = [int(scale) for scale in str(case.option("M", "[1,2]")).strip("[]").split(",")]
        if scales != [2**level for level in range(len(scales))]:
            raise NotImplementedError(f"regions of scales {scales}")
        heads = [(case.param(f"fc_{side}.weight"), case.param(f"fc_{side}.bias")) for side in "st"]
        maps = (case.stages(f"{side}.features")[-1] for side in ("student", "teacher"))
        student, teacher = (
            region_logits(stage, head, len(scales)) for stage, head in zip(maps, heads, strict=True)
        )
        outputs = {"out.student_patch_logits": student.mT}
    return regions(case, student, teacher), outputs


def regions(case: Case, student: Tensor, teacher: Tensor) -> Tensor:
    t, target = temperature(case), case["target"]
    if "gamma" not in case.options:
        weights = {name: case.option(name) for name in ("alpha", "beta") if name in case.options}
        return sdd_loss(
            student, teacher, target, "dkd" if "beta" in weights else "kd", t, **weights
        )
    label = target.unsqueeze(1).expand(
        student.shape[:2]
    )  # its mask excludes no class, so the second term has all classes
    everyone = softened_kl(student, teacher, t) + entropy(teacher, t)
    values = target_cross_entropy(student, teacher, label) + case.option("gamma") * t**2 * everyone
    return (values * region_weights(teacher, target)).mean()


def uskd(case: Case) -> Tensor:
    weak = F.linear(case["student.embedding"], case.param("fc.weight"), case.param("fc.bias"))
    target = case["target_soft"] if "target_soft" in case else case["target"]
    return uskd_loss(
        case["student.logits"],
        weak,
        target,
        case.option("alpha", 1.0),
        case.option("beta", 0.1),
        case.option("mu", 0.005),
    )


ADAPTERS = {
    "wsld": wsld,
    "ttm": ttm,
    "wttm": wttm,
    "ikl": gkl,
    "gkl": gkl,
    "mlkd": mlkd,
    "skd": skd,
    "mft": mft,
    "sdd": sdd,
    "uskd": uskd,
}
