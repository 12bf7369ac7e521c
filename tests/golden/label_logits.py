"""Adapters for losses that bring the label, the student's past or a virtual teacher together with
logits, and for dense and ensembled KD.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from instil.core import UNLABELLED
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.cs_kd import cs_kd_loss
from instil.objectives.logits.ctkd import CTKD, ctkd_loss
from instil.objectives.logits.deit_hard import deit_hard_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.logits.ps_kd import ps_kd_loss
from instil.objectives.logits.tf_kd import tf_kd_loss
from instil.objectives.relations.darkrank import darkrank_loss
from instil.teachers.ensemble import Ensemble
from tests.golden.cases import Case
from tests.golden.logits import Answer, distilled, logits, scaled, temperature


def given(case: Case, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those outputs that the case holds."""
    return {name: value for name, value in outputs.items() if name in case}


def entropy(log_probability: Tensor) -> Tensor:
    """What a cross-entropy has more than the KL, (...)."""
    return torch.special.entr(log_probability.exp()).sum(-1)


def ctkd(case: Case) -> Answer:
    """A given temperature an item, or our learned one with the case's level and strength."""
    student, teacher = logits(case)
    if "temperature_n" in case:
        return ctkd_loss(student, teacher, case["temperature_n"].reshape(student.shape[:-1])), {}
    ours, level, strength = reversal(case)
    ours.level, ours.strength = level, strength  # type: ignore[assignment]
    softness = ours.temperature(student, teacher)
    values = ctkd_loss(student, teacher, softness, "none")
    if "cross-entropy" in case.formula or "log p_s" in case.formula:
        values = values + softness**2 * entropy((teacher / softness).log_softmax(-1))
    counted = (
        (case["target"] != UNLABELLED).double()
        if "target" in case and values.ndim > 1
        else torch.ones_like(values)
    )
    return (values * counted).sum() / counted.sum(), given(
        case, {"temperature": softness.reshape(1)}
    )


def reversal(case: Case) -> tuple[CTKD, Tensor, float]:
    """CTKD with the case's range, its level and how strongly the gradient is reversed: minus the
    factor of the official layer.
    """
    if "temp_start" in case.options:  # decays along half a cosine, and is asked one epoch ahead
        loops = case.option("num_loops")
        done = min(max(case.option("epoch") + 1, 0), loops) / loops
        low, high = case.option("lambda_min"), case.option("lambda_max")
        factor = low + (high - low) * (math.cos(math.pi * done) + 1) / 2
        return (
            CTKD("global", case.option("temp_start"), case.option("temp_end")),
            case.param("global_temperature"),
            -factor,
        )
    return (
        CTKD("global", case.option("t_start", 1.0), case.option("t_end", 20.0)),
        case.param("global_T"),
        -case.option("lambda"),
    )


def deit_soft(case: Case) -> Tensor:
    student, tau, alpha = (
        case["student.logits_dist"],
        case.option("tau", 1.0),
        case.option("alpha", 0.5),
    )
    soft = kd_loss(student, case["teacher.logits"], tau)
    if case.says("numel"):
        soft = soft / student.shape[-1]
    return (1 - alpha) * cross_entropy_loss(case["student.logits"], case["target"]) + alpha * soft


def deit_hard(case: Case) -> Tensor:
    case.ignore("tau")  # the temperature of the soft form
    alpha = case.option("alpha", 0.5)
    hard = deit_hard_loss(case["student.logits_dist"], case["teacher.logits"])
    return (1 - alpha) * cross_entropy_loss(case["student.logits"], case["target"]) + alpha * hard


def tf_kd(case: Case, soft: Tensor) -> Tensor:
    """The label's part, and the soft part with the repository's multiplier, over the classes too
    where its reduction is element-wise.
    """
    alpha = case.option("alpha")
    if case.says("n*c", '"mean"'):
        soft = soft / case["student.logits"].shape[-1]
    return (1 - alpha) * cross_entropy_loss(
        case["student.logits"], case["target"]
    ) + alpha * case.option("multiplier", 1.0) * soft


def tf_kd_reg(case: Case) -> Tensor:
    return tf_kd(
        case,
        tf_kd_loss(
            case["student.logits"],
            case["target"],
            case.option("correct_prob", 0.99),
            temperature(case),
        ),
    )


def tf_kd_self(case: Case) -> Tensor:
    return tf_kd(case, kd_loss(*logits(case), temperature(case), scaled(case)))


def ps_kd(case: Case) -> Answer:
    alpha = max(0.0, case.option("alpha_T") * (case.option("epoch") + 1) / case.option("end_epoch"))
    loss = ps_kd_loss(
        case["student.logits"], case["past.probabilities"].log(), case["target"], alpha
    )
    return loss, given(case, {"alpha_t": torch.tensor(alpha, dtype=torch.float64)})


def cs_kd(case: Case) -> Answer:
    """The case gives each sample its one partner."""
    student, partner = case["student.logits"], case["pair.logits"]
    soft = cs_kd_loss(
        student, partner, torch.eye(len(student), dtype=torch.bool), temperature(case)
    )
    return cross_entropy_loss(student, case["target"]) + case.option("lambda", 1.0) * soft, given(
        case, {"part.cls": soft}
    )


def pixel_kd(case: Case) -> Answer:
    return distilled(case, *logits(case))


def skd_pixelwise(case: Case) -> Tensor:
    """A cross-entropy, summed over the pixels of all samples and divided by those of one."""
    student, teacher = logits(case)
    soft = temperature(case)
    if soft != 1:
        raise NotImplementedError(f"temperature {soft}")
    if not case.says("w*h", "(w h)"):
        raise NotImplementedError(f"reduction: {case.reduction}")
    values = kd_loss(student, teacher, 1.0, reduction="none") + entropy(teacher.log_softmax(-1))
    return values.sum() / (student.shape[1] * student.shape[2])


def darkrank_hard(case: Case) -> Tensor:
    options = {
        "alpha": case.option("alpha", 3),
        "beta": case.option("beta", 3),
        "length": case.option("permute_len", 4),
    }
    return darkrank_loss(case["student.embedding"], case["teacher.embedding"], "hard", **options)


def glnn(case: Case) -> Answer:
    """The label loss of the nodes that have one, KD of all."""
    student, teacher = logits(case)
    share = case.option("lamb")
    hard, soft = (
        share * cross_entropy_loss(student[case["index"]], case["target"]),
        (1 - share) * kd_loss(student, teacher, 1.0),
    )
    return hard + soft, given(case, {"loss.hard": hard, "loss.soft": soft})


def mkd_average(case: Case) -> Answer:
    """KD from each teacher, averaged; or from our ensemble of them, with the entropy that a
    cross-entropy has more.
    """
    student = case["student.logits"]
    teachers = [
        case[name]
        for name in case.arrays
        if name.startswith("teachers.") and name.endswith(".logits")
    ]
    if case.says("mean over teachers"):
        return torch.stack(
            [kd_loss(student, teacher, temperature(case), scaled(case)) for teacher in teachers]
        ).mean(), {}
    kind = "logits" if "softmax(mean_k t_k)" in case.formula else "probabilities"
    if kind == "probabilities" and "mean_k softmax(t_k)" not in case.formula:
        raise NotImplementedError(f"ensemble: {case.formula}")
    members = [Given(teacher) for teacher in teachers]
    target = Ensemble(members, kind)({"x": student})["logits"].log_softmax(-1)  # type: ignore[arg-type]
    loss = kd_loss(student, target, 1.0) + entropy(target).mean()
    return loss, given(case, {"soft_label": target.exp()})


class Given(torch.nn.Module):
    """A net that says what the case's teacher said."""

    def __init__(self, values: Tensor):
        super().__init__()
        self.values = values

    def forward(self, _inputs: Tensor) -> Tensor:
        return self.values


ADAPTERS = {
    "ctkd": ctkd,
    "deit_soft": deit_soft,
    "deit_hard": deit_hard,
    "tf_kd_reg": tf_kd_reg,
    "tf_kd_self": tf_kd_self,
    "ps_kd": ps_kd,
    "cs_kd": cs_kd,
    "pixel_kd": pixel_kd,
    "skd_pixelwise": skd_pixelwise,
    "darkrank_hard": darkrank_hard,
    "glnn": glnn,
    "mkd_average": mkd_average,
}
