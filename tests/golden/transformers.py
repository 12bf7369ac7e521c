"""Adapters for losses on hidden states, attentions and tokens of transformers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from instil.functional.ensembles import sample_teacher_mask
from instil.functional.feature_maps import as_map
from instil.functional.hadamard import equalizing_rotation, hadamard
from instil.functional.hidden_states import layer_map
from instil.modules.adapters import Adapter
from instil.objectives.features.distilbert import distilbert_loss
from instil.objectives.features.patient_kd import patient_kd_loss
from instil.objectives.features.phi_s import phi_s_loss, phi_s_matrix
from instil.objectives.features.srd import batch_norm, srd_correlation_loss, srd_loss
from instil.objectives.features.theia import theia_loss
from instil.objectives.features.tinybert import tinybert_attention_loss, tinybert_hidden_loss
from instil.objectives.features.unic import unic_loss
from instil.objectives.features.vitkd import (
    MaskedTokenGenerator,
    hidden_token_mask,
    vitkd_generation_loss,
    vitkd_mimicking_loss,
)
from instil.objectives.features.vkd import OrthogonalProjection, vkd_loss
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.relations.minilmv2 import minilmv2_loss, relation_scores
from tests.golden.cases import Case

RELATED = {"1": "query", "2": "key", "3": "value"}


def patientkd(case: Case) -> Tensor:
    if "student.cls_states" in case:
        return patient_kd_loss(
            case["student.cls_states"], case["teacher.cls_states"], case.option("normalized", True)
        )
    student, teacher, temperature = (
        case["student.logits"],
        case["teacher.logits"],
        case.option("temperature", 1.0),
    )
    alpha, kind = case.option("alpha", 1.0), case.option("reduction_kd", "mean")
    divisor = {"mean": student.numel(), "batchmean": len(student), "sum": 1}
    if kind not in divisor:
        raise NotImplementedError(f"reduction_kd={kind!r}")
    soft = kd_loss(student, teacher, temperature, reduction="none").sum() / divisor[kind]
    return alpha * soft + (1 - alpha) * cross_entropy_loss(student, case["target"])


def tinybert(case: Case) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    if "student.logits" in case:
        return soft_cross_entropy(
            case["student.logits"], case["teacher.logits"], case.option("temperature", 1.0), case
        )
    if case.option("mask_threshold", -100.0) != -100.0:
        raise NotImplementedError(f"mask_threshold={case.option('mask_threshold')}")
    case.ignore("student_layers", "teacher_layers")
    hidden, taught = case.stages("student.hidden_states"), case.stages("teacher.hidden_states")
    attentions, targets = case.stages("student.attentions"), case.stages("teacher.attentions")
    layers, zero = [], torch.zeros((), dtype=torch.float64)
    if attentions or hidden:
        count = len(attentions) or len(hidden) - 1, len(targets) or len(taught) - 1
        layers = layer_map("uniform", *count)
    of_attention = sum(
        (
            tinybert_attention_loss(attentions[i - 1], targets[j - 1])
            for i, j in layers
            if attentions
        ),
        start=zero,
    )
    of_hidden = sum(
        (tinybert_hidden_loss(hidden[i], taught[j]) for i, j in [(0, 0), *layers] if hidden),
        start=zero,
    )
    parts = {"loss.attention": of_attention, "loss.hidden": of_hidden}
    return of_attention + of_hidden, {name: value for name, value in parts.items() if name in case}


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, case: Case) -> Tensor:
    """KL plus the entropy of the teacher; the mean includes the classes."""
    soft = (teacher / temperature).softmax(-1)
    entropy = -(soft * (teacher / temperature).log_softmax(-1)).sum(-1)
    values = kd_loss(student, teacher, temperature, reduction="none") / temperature**2 + entropy
    return values.mean() / (1 if case.option("reduction") == "batchmean" else student.shape[-1])


def minilm(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of both terms; the sum of the paper if the case does not average."""
    mask = case["attention_mask"].double() if "attention_mask" in case else None
    attention, value = (
        minilmv2_loss(case[f"student.{role}_scores"], case[f"teacher.{role}_scores"], mask)
        for role in ("query", "value")
    )
    parts = {
        name: part
        for name, part in (("loss.attention", attention), ("loss.value", value))
        if name in case
    }
    return (attention + value) / (2 if case.mentions("/2") else 1), parts


def minilmv2(case: Case) -> Tensor:
    mask, heads = case.arrays.get("attention_mask"), case.option("relation_heads", 12)
    mask = None if mask is None else mask.double()
    total = torch.zeros((), dtype=torch.float64)
    for pair, weight in case.option("relations", {"11": 1 / 3, "22": 1 / 3, "33": 1 / 3}).items():
        first, second = (
            RELATED[digit] for digit in str(pair).strip("()").replace(",", "").replace(" ", "")
        )
        scores = [
            relation_scores(case[f"{side}.{first}"], case[f"{side}.{second}"], heads, mask)
            for side in ("student", "teacher")
        ]
        total = total + weight * minilmv2_loss(*scores, mask)
    return total


def distilbert(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """KL and squared error of logits over masked or attended positions, by option."""
    student, teacher, target = case["student.logits"], case["teacher.logits"], case["target"]
    attended, temperature = case["attention_mask"].bool(), case.option("temperature", 2.0)
    counted = (target > -1) if case.option("restrict_ce_to_mask") else attended
    values = kd_loss(student, teacher, temperature, reduction="none")
    soft = (values * counted).sum() / counted.sum()
    language = cross_entropy_loss(student, target)
    cosine = distilbert_loss(
        case["student.hidden_states.0"], case["teacher.hidden_states.0"], attended
    )
    loss = (
        case.option("alpha_ce", 5.0) * soft
        + case.option("alpha_mlm", 2.0) * language
        + case.option("alpha_cos", 1.0) * cosine
    )
    parts = {"part.ce": soft, "part.mlm": language, "part.cos": cosine}
    if weight := case.option("alpha_mse", 0.0):
        parts["part.mse"] = ((student - teacher).square().sum(-1) * counted).sum() / counted.sum()
        loss = loss + weight * parts["part.mse"]
    return loss, {name: value for name, value in parts.items() if name in case}


def vitkd(case: Case) -> Tensor:
    """All layers except the last are mimicked; official linear layers are 1x1 convolutions here."""
    *shallow, (student, teacher) = case.pairs("hidden_states")
    ratio, parameters, noise = (
        case.option("lambda_vitkd", 0.5),
        case.params(),
        case.arrays.get("mask_noise"),
    )
    if noise is None:
        raise NotImplementedError("tokens hidden at random, without the noise they were drawn by")
    generator = MaskedTokenGenerator(Adapter(student, teacher), teacher.shape[2]).double()
    target = as_map(teacher)
    hidden = hidden_token_mask(noise, ratio).view(-1, *target.shape[2:])
    named = {"mask_token": parameters["mask_token"].view(1, -1, 1, 1)} | {
        n: v for n, v in parameters.items() if n.startswith("generation.")
    }
    if "align.weight" in parameters:
        named |= {
            "align.project.weight": parameters["align.weight"][..., None, None],
            "align.project.bias": parameters["align.bias"],
        }
    generated = torch.func.functional_call(generator, named, (student, hidden))
    loss = case.option("beta_vitkd", 3e-6) * vitkd_generation_loss(generated, target, hidden, ratio)
    for index, (low, target_low) in enumerate(shallow):
        if f"align2.{index}.weight" in parameters:
            low = F.linear(
                low, parameters[f"align2.{index}.weight"], parameters[f"align2.{index}.bias"]
            )
        loss = loss + case.option("alpha_vitkd", 3e-5) * vitkd_mimicking_loss(low, target_low)
    return loss


def vkd(case: Case) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    """Detection: projected tokens, standardised over the batch; classification: projected means."""
    alpha, pooled = case.option("alpha", 1.0), case.stages("teacher.features")
    teacher = pooled[0] if pooled else case["teacher.embedding"]
    teacher = teacher.flatten(2).mT if teacher.ndim == 4 else teacher
    if "param.projector.parametrizations.weight.original" not in case:
        student = case["student.embedding"]
        return alpha * vkd_loss(student, teacher.reshape(student.shape), "batch")
    student = case["student.hidden_states.0"]
    projection = OrthogonalProjection(student.shape[-1], teacher.shape[-1]).double()
    with torch.no_grad():
        projection.load_state_dict(case.params())
    original = case.param("projector.parametrizations.weight.original")
    call = {"projector.parametrizations.weight.original": original}
    projected = torch.func.functional_call(
        projection, call, (student.mean(1) if student.ndim == 3 else student,)
    )
    outputs = (
        {"out.projector_weight": projection.projector.weight}
        if "out.projector_weight" in case
        else {}
    )
    return alpha * vkd_loss(projected, teacher.mean(1) if teacher.ndim == 3 else teacher), outputs


def srd(case: Case) -> Tensor:
    """Normalised features, or a linear layer and two BatchNorms; the KL term has no factor T²."""
    student, teacher = srd_features(case, "student"), srd_features(case, "teacher")
    if "correlation" in case.formula or "mean_b" in case.formula:
        return srd_correlation_loss(
            student, teacher, case.option("power", 4.0), case.option("eps", 1e-5)
        )
    loss = case.option("weight", 2.0) * srd_loss(
        student, teacher, case.option("power", case.option("exponent", 4.0))
    )
    if "student.logits" in case:
        loss = loss + kd_loss(
            case["student.logits"],
            case["teacher.logits"],
            case.option("temperature", 1.0),
            scale=False,
        )
    return loss


def srd_features(case: Case, side: str) -> Tensor:
    stages = case.stages(f"{side}.features")
    features = stages[-1].mean((2, 3)) if stages else case[f"{side}.embedding"]
    if "param.embed.weight" not in case:
        return features
    if side == "student":
        features = F.linear(
            features, case.param("embed.weight"), case.arrays.get("param.embed.bias")
        )
    name, epsilon = f"bn_{side[0]}", case.option("bn_eps", 1e-4)
    if case.option("bn_training", True):
        return batch_norm(features, epsilon)
    return (features - case.param(f"{name}.running_mean")) * (
        case.param(f"{name}.running_var") + epsilon
    ).rsqrt()


def theia(case: Case) -> Tensor:
    """Mean over the teachers."""
    case.ignore("teachers")
    weights = {
        "cos_l1": (0.9, 0.1, 0.0),
        "mse": (0.0, 0.0, 1.0),
        "cos": (1.0, 0.0, 0.0),
        "l1": (0.0, 1.0, 0.0),
    }
    chosen = weights.get(case.option("main_loss", "cos_l1"))
    if chosen is None:
        raise NotImplementedError(f"main_loss={case.option('main_loss')!r}")
    heads = case.stages("student.heads")
    return torch.stack(
        [theia_loss(head, case[f"teachers.{n}.tokens"], *chosen) for n, head in enumerate(heads)]
    ).mean()


def unic(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """Equal weights for all selected pairs of sample and teacher.

    The code draws no noise for the teacher with the largest loss of a sample.
    """
    options = (
        case.option("lam_cos", 0.5),
        case.option("lam_sl1", 0.5),
        case.option("smooth_l1_beta", 1.0),
    )
    teachers = sorted(
        {int(name.split(".")[1]) for name in case.arrays if name.startswith("teachers.")}
    )
    losses = []
    for index in teachers:
        kinds = [kind for kind in ("cls", "patch") if f"teachers.{index}.{kind}" in case]
        terms = [
            unic_loss(
                case[f"student.heads.{index}.{kind}"],
                case[f"teachers.{index}.{kind}"],
                *options,
                reduction="none",
            )
            for kind in kinds
        ]
        losses.append(torch.stack(terms).mean(0))
    together, drop = torch.stack(losses, 1), case.option("t_drop_prob", 0.5)
    is_selected = torch.ones_like(together)
    if drop and len(teachers) > 1:
        if "drop_noise" not in case:
            raise NotImplementedError(
                "teachers dropped at random, without the noise they were drawn by"
            )
        others = (
            torch.ones_like(together)
            .scatter(1, together.detach().argmax(1, keepdim=True), 0)
            .bool()
        )
        noise = torch.ones_like(together).masked_scatter(others, case["drop_noise"].flatten())
        is_selected = sample_teacher_mask(together, noise, drop)
    shares = is_selected / is_selected.sum()
    outputs = (
        {"out.teacher_coefficients": shares.sum(0)} if "out.teacher_coefficients" in case else {}
    )
    return (together * shares).sum(), outputs


def phi_s(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The signs of the eigenvectors are those of the case."""
    case.ignore("dim")
    teacher = case["teacher.embedding"]
    mean, matrix = phi_s_matrix(teacher)
    turn = equalizing_rotation(torch.linalg.eigvalsh(torch.cov(teacher.T)))
    if hadamard(teacher.shape[1]) is None:
        raise NotImplementedError(f"a random rotation of {teacher.shape[1]} channels")
    rotated, reference = turn.T @ matrix, turn.T @ case["out.whiten"]
    matrix = turn @ ((rotated * reference).sum(1, keepdim=True).sign() * rotated)
    outputs = {
        "out.mean": mean,
        "out.whiten": matrix,
        "out.variance": ((teacher - mean) @ matrix.T).var(0),
    }
    loss = phi_s_loss(case["student.embedding"][:, None], teacher[:, None], mean, matrix)
    return loss, {name: value for name, value in outputs.items() if name in case}


ADAPTERS = {
    "patientkd": patientkd,
    "tinybert": tinybert,
    "minilm": minilm,
    "minilmv2": minilmv2,
    "distilbert": distilbert,
    "vitkd": vitkd,
    "vkd": vkd,
    "srd": srd,
    "theia": theia,
    "unic": unic,
    "phi_s": phi_s,
}
