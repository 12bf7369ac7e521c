"""Adapters for losses with labels, past predictions or a virtual teacher.

Also dense KD and KD from ensembles.
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


def stored_outputs(case: Case, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs that the case contains."""
    return {name: value for name, value in outputs.items() if name in case}


def entropy(log_probability: Tensor) -> Tensor:
    """Difference of a cross-entropy to the KL divergence, (...)."""
    return torch.special.entr(log_probability.exp()).sum(-1)


def ctkd(case: Case) -> Answer:
    """A temperature per item, or the learned one with level and strength of the case."""
    student, teacher = logits(case)
    if "temperature_n" in case:
        return ctkd_loss(student, teacher, case["temperature_n"].reshape(student.shape[:-1])), {}
    module, level, strength = reversal(case)
    module.level, module.strength = level, strength  # type: ignore[assignment]
    softness = module.temperature(student, teacher)
    values = ctkd_loss(student, teacher, softness, "none")
    if "cross-entropy" in case.formula or "log p_s" in case.formula:
        values = values + softness**2 * entropy((teacher / softness).log_softmax(-1))
    counted = (
        (case["target"] != UNLABELLED).double()
        if "target" in case and values.ndim > 1
        else torch.ones_like(values)
    )
    return (values * counted).sum() / counted.sum(), stored_outputs(
        case, {"temperature": softness.reshape(1)}
    )


def reversal(case: Case) -> tuple[CTKD, Tensor, float]:
    """Temperature module with the range and level of the case, and its gradient reversal.

    The strength is minus the factor of the official layer.
    """
    if "temp_start" in case.options:  # decays along half a cosine, evaluated one epoch ahead
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
    if case.mentions("numel"):
        soft = soft / student.shape[-1]
    return (1 - alpha) * cross_entropy_loss(case["student.logits"], case["target"]) + alpha * soft


def deit_hard(case: Case) -> Tensor:
    case.ignore("tau")  # temperature of the soft form
    alpha = case.option("alpha", 0.5)
    hard = deit_hard_loss(case["student.logits_dist"], case["teacher.logits"])
    return (1 - alpha) * cross_entropy_loss(case["student.logits"], case["target"]) + alpha * hard


def tf_kd(case: Case, soft: Tensor) -> Tensor:
    """Label term, and soft term with the multiplier of the repository.

    With an element-wise reduction the soft term is averaged over the classes too.
    """
    alpha = case.option("alpha")
    if case.mentions("n*c", '"mean"'):
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
    return loss, stored_outputs(case, {"alpha_t": torch.tensor(alpha, dtype=torch.float64)})


def cs_kd(case: Case) -> Answer:
    """Each sample has exactly one partner in the case."""
    student, partner = case["student.logits"], case["pair.logits"]
    soft = cs_kd_loss(
        student, partner, torch.eye(len(student), dtype=torch.bool), temperature(case)
    )
    return cross_entropy_loss(student, case["target"]) + case.option(
        "lambda", 1.0
    ) * soft, stored_outputs(case, {"part.cls": soft})


def pixel_kd(case: Case) -> Answer:
    return distilled(case, *logits(case))


def skd_pixelwise(case: Case) -> Tensor:
    """Cross-entropy, summed over the pixels of all samples and divided by the pixels of one."""
    student, teacher = logits(case)
    soft = temperature(case)
    if soft != 1:
        raise NotImplementedError(f"temperature {soft}")
    if not case.mentions("w*h", "(w h)"):
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
    """Label loss of the labelled nodes, KD of all nodes."""
    student, teacher = logits(case)
    share = case.option("lamb")
    hard, soft = (
        share * cross_entropy_loss(student[case["index"]], case["target"]),
        (1 - share) * kd_loss(student, teacher, 1.0),
    )
    return hard + soft, stored_outputs(case, {"loss.hard": hard, "loss.soft": soft})


def mkd_average(case: Case) -> Answer:
    """KD averaged over the teachers, or KD from their ensemble plus the teacher's entropy."""
    student = case["student.logits"]
    teachers = [
        case[name]
        for name in case.arrays
        if name.startswith("teachers.") and name.endswith(".logits")
    ]
    if case.mentions("mean over teachers"):
        return torch.stack(
            [kd_loss(student, teacher, temperature(case), scaled(case)) for teacher in teachers]
        ).mean(), {}
    kind = "logits" if "softmax(mean_k t_k)" in case.formula else "probabilities"
    if kind == "probabilities" and "mean_k softmax(t_k)" not in case.formula:
        raise NotImplementedError(f"ensemble: {case.formula}")
    members = [StoredNetwork(teacher) for teacher in teachers]
    ensemble = Ensemble(members, kind)  # type: ignore[arg-type]
    target = ensemble({"x": student})["logits"].log_softmax(-1)
    loss = kd_loss(student, target, 1.0) + entropy(target).mean()
    return loss, stored_outputs(case, {"soft_label": target.exp()})


class StoredNetwork(torch.nn.Module):
    """Network that returns the teacher outputs of the case."""

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
