"""Adapters for losses on what transformers compute inside: hidden states, attentions, tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.objectives.features.distilbert import distilbert_loss
from instil.objectives.features.patient_kd import patient_kd_loss
from instil.objectives.features.tinybert import tinybert_attention_loss, tinybert_hidden_loss
from instil.objectives.hidden_objective import layer_map
from instil.objectives.labels.cross_entropy import cross_entropy_loss
from instil.objectives.logits.kd import kd_loss
from instil.objectives.relations.minilmv2 import minilmv2_loss, relation_scores
from tests.golden.cases import Case

RELATED = {"1": "query", "2": "key", "3": "value"}


def patientkd(case: Case) -> Tensor:
    if "student.cls_states" in case:
        return patient_kd_loss(case["student.cls_states"], case["teacher.cls_states"], case.option("normalized", True))
    student, teacher, temperature = case["student.logits"], case["teacher.logits"], case.option("temperature", 1.0)
    alpha, kind = case.option("alpha", 1.0), case.option("reduction_kd", "mean")
    divisor = {"mean": student.numel(), "batchmean": len(student), "sum": 1}
    if kind not in divisor:
        raise NotImplementedError(f"reduction_kd={kind!r}")
    soft = kd_loss(student, teacher, temperature, reduction="none").sum() / divisor[kind]
    return alpha * soft + (1 - alpha) * cross_entropy_loss(student, case["target"])


def tinybert(case: Case) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
    if "student.logits" in case:
        return soft_cross_entropy(case["student.logits"], case["teacher.logits"], case.option("temperature", 1.0), case)
    if case.option("mask_threshold", -100.0) != -100.0:
        raise NotImplementedError(f"mask_threshold={case.option('mask_threshold')}")
    hidden, taught = case.stages("student.hidden_states"), case.stages("teacher.hidden_states")
    attentions, targets = case.stages("student.attentions"), case.stages("teacher.attentions")
    layers, zero = [], torch.zeros((), dtype=torch.float64)
    if attentions or hidden:
        count = len(attentions) or len(hidden) - 1, len(targets) or len(taught) - 1
        layers = layer_map("uniform", *count)
    of_attention = sum((tinybert_attention_loss(attentions[i - 1], targets[j - 1]) for i, j in layers if attentions), start=zero)
    of_hidden = sum((tinybert_hidden_loss(hidden[i], taught[j]) for i, j in [(0, 0), *layers] if hidden), start=zero)
    parts = {"loss.attention": of_attention, "loss.hidden": of_hidden}
    return of_attention + of_hidden, {name: value for name, value in parts.items() if name in case}


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float, case: Case) -> Tensor:
    """KL plus the teacher's entropy, which is all that the authors' cross-entropy has more; its mean is over the classes too."""
    soft = (teacher / temperature).softmax(-1)
    entropy = -(soft * (teacher / temperature).log_softmax(-1)).sum(-1)
    values = kd_loss(student, teacher, temperature, reduction="none") / temperature**2 + entropy
    return values.mean() / (1 if case.option("reduction") == "batchmean" else student.shape[-1])


def minilm(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean of both terms; the paper's sum where the case does not average."""
    mask = case["attention_mask"].double() if "attention_mask" in case else None
    attention, value = (minilmv2_loss(case[f"student.{role}_scores"], case[f"teacher.{role}_scores"], mask) for role in ("query", "value"))
    parts = {name: part for name, part in (("loss.attention", attention), ("loss.value", value)) if name in case}
    return (attention + value) / (2 if case.says("/2") else 1), parts


def minilmv2(case: Case) -> Tensor:
    mask, heads = case.arrays.get("attention_mask"), case.option("relation_heads", 12)
    mask = None if mask is None else mask.double()
    total = torch.zeros((), dtype=torch.float64)
    for pair, weight in case.option("relations", {"11": 1 / 3, "22": 1 / 3, "33": 1 / 3}).items():
        first, second = (RELATED[digit] for digit in str(pair).strip("()").replace(",", "").replace(" ", ""))
        scores = [relation_scores(case[f"{side}.{first}"], case[f"{side}.{second}"], heads, mask) for side in ("student", "teacher")]
        total = total + weight * minilmv2_loss(*scores, mask)
    return total


def distilbert(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """The KL (and the mean squared error of logits) is over the masked positions or over all attended ones, as an option says."""
    student, teacher, target = case["student.logits"], case["teacher.logits"], case["target"]
    attended, temperature = case["attention_mask"].bool(), case.option("temperature", 2.0)
    counted = (target > -1) if case.option("restrict_ce_to_mask") else attended
    values = kd_loss(student, teacher, temperature, reduction="none")
    soft = (values * counted).sum() / counted.sum()
    language = cross_entropy_loss(student, target)
    cosine = distilbert_loss(case["student.hidden_states.0"], case["teacher.hidden_states.0"], attended)
    loss = case.option("alpha_ce", 5.0) * soft + case.option("alpha_mlm", 2.0) * language + case.option("alpha_cos", 1.0) * cosine
    parts = {"part.ce": soft, "part.mlm": language, "part.cos": cosine}
    if weight := case.option("alpha_mse", 0.0):
        parts["part.mse"] = ((student - teacher).square().sum(-1) * counted).sum() / counted.sum()
        loss = loss + weight * parts["part.mse"]
    return loss, {name: value for name, value in parts.items() if name in case}


ADAPTERS = {"patientkd": patientkd, "tinybert": tinybert, "minilm": minilm, "minilmv2": minilmv2, "distilbert": distilbert}
