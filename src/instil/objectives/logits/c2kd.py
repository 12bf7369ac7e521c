"""C2KD: customised cross-modal distillation with proxy classifiers and a filter of samples."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    UNLABELLED,
    Batch,
    Card,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.divergences import softened_kl
from instil.functional.logits import apply_reduction, require_same_logits, without_target
from instil.functional.rank_correlation import non_target_rank_correlation
from instil.items import Items
from instil.modules.adapters import match_dtype


@check_bounds
def c2kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_proxy: Tensor,
    teacher_proxy: Tensor,
    target: Tensor,
    temperature: Positive = 2.0,
    threshold: Annotated[float, Ge(-1), Le(1)] = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Loss of the chain from teacher to student through both proxies (Huo et al. 2024).

    The proxies learn from each other the distribution over the classes other than the target.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C).
        student_proxy: logits (N, C) of the student's proxy.
        teacher_proxy: logits (N, C) of the teacher's proxy.
        target: class indices (N,); ``-100`` marks a sample without a label. The terms between the
            proxies leave the target out, and compare all classes without one. The rank correlation
            leaves out the target, or the teacher's class without one.
        temperature: softmax temperature, > 0.
        threshold: smallest rank correlation of samples that pass between the proxies.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the logits differ in shape, or there is only one class.

    Example:
        >>> logits = torch.tensor([[1.0, 2.0, 0.0]])
        >>> c2kd_loss(logits, logits, logits, torch.zeros(1, 3), torch.tensor([0]))
        tensor(1.2379)
    """
    require_same_logits(student_logits, teacher_logits, classes=2)
    is_labelled = target != UNLABELLED
    left_out = torch.where(is_labelled, target, teacher_logits.argmax(-1))
    correlation = non_target_rank_correlation(student_proxy, teacher_proxy, left_out)
    passes = correlation >= threshold
    anchor = temperature**2 * softened_kl(teacher_proxy, teacher_logits, temperature)
    first, second = (
        torch.where(is_labelled[..., None], without_target(proxy, target)[1], proxy)
        for proxy in (teacher_proxy, student_proxy)
    )
    across = two_way_kl(first, second, temperature) * passes
    own = two_way_kl(student_proxy, student_logits, temperature)
    return apply_reduction(anchor + across + own, reduction)


def two_way_kl(first_logits: Tensor, second_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Sum of both KL divergences of two softmaxes, with ``temperature ** 2``.

    Each divergence has a gradient for its second argument only, as in mutual learning.

    Args:
        first_logits: (N, C).
        second_logits: (N, C).
        temperature: softmax temperature, > 0.

    Returns:
        (N,).

    Example:
        >>> two_way_kl(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor([0.2311])
    """
    forward = softened_kl(second_logits, first_logits.detach(), temperature)
    backward = softened_kl(first_logits, second_logits.detach(), temperature)
    return temperature**2 * (forward + backward)


class C2KD(Objective):
    """Distillation between modalities through a proxy classifier on each side.

    The teacher's proxy reads the frozen teacher embedding and is trained with the student, so that
    it moves towards what the student's modality shows. Samples whose proxies rank the wrong classes
    differently do not pass from proxy to proxy.
    """

    items = Items(per_sample=True)
    card = Card(
        "C2KD: bridging the modality gap for cross-modal knowledge distillation",
        "https://openaccess.thecvf.com/content/CVPR2024/html/Huo_C2KD_Bridging_the_Modality_Gap_"
        "for_Cross-Modal_Knowledge_Distillation_CVPR_2024_paper.html",
        "CVPR",
        2024,
        source="logits",
        tasks=("classification", "video_classification"),
        labels=("single",),
        zero_at_match=False,
        finite_logits=True,
        deviations="The teacher stays frozen; only its proxy is trained. The paper also tunes the "
        "teacher, by the labels and by its proxy. The authors' code has temperature 1. Between the "
        "proxies it sets the target's logit to 0 instead of leaving the class out, and its filter "
        "ranks all classes. Samples without a label have no target: all their classes are "
        "compared, and the filter leaves out the teacher's class.",
        equation=r"T^2 \left[ D(p^t \Vert \hat p^t) + 1_{\tau(\hat p^t, \hat p^s) \ge \theta} "
        r"\left( D(\hat q^t \Vert \hat q^s) + D(\hat q^s \Vert \hat q^t) \right) + "
        r"D(\hat p^s \Vert p^s) + D(p^s \Vert \hat p^s) \right], \quad "
        r"\hat q = \mathrm{softmax}(\hat z / T) \text{ over } c \ne y",
        use="For a teacher of another modality whose soft labels depend on what the student cannot "
        "see. Both networks need the role embedding.",
        pitfalls="The filter compares all pairs of classes, which takes N x C x C values. Watch "
        "the share of samples that pass: with a threshold near 1 the student learns nothing from "
        "the teacher. Add cross_entropy: of labelled samples the proxies compare the wrong classes "
        "only. On easy pairs plain kd is as good.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("logits",), ("embedding",)))

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 2.0,
        threshold: Annotated[
            float,
            Ge(-1),
            Le(1),
            Doc("smallest Kendall rank correlation of the wrong classes of a sample that is used"),
        ] = 0.0,
    ):
        super().__init__()
        self.temperature = temperature
        self.threshold = threshold
        self.student_proxy: nn.Module = nn.Identity()
        self.teacher_proxy: nn.Module = nn.Identity()

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the proxy classifiers of both sides."""
        self.student_proxy = _proxy(student_outputs)
        self.teacher_proxy = _proxy(teacher_outputs)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_logits = to_float32(student_outputs["logits"])
        teacher_logits = to_float32(teacher_outputs["logits"])
        student_proxy = _apply(self.student_proxy, student_outputs)
        teacher_proxy = _apply(self.teacher_proxy, teacher_outputs)
        return c2kd_loss(
            student_logits,
            teacher_logits,
            student_proxy,
            teacher_proxy,
            batch["label"],
            self.temperature,
            self.threshold,
            "none",
        )


def _proxy(outputs: Outputs) -> nn.Module:
    embedding, logits = outputs["embedding"], outputs["logits"]
    dtype = to_float32(embedding).dtype
    return nn.Linear(
        embedding.flatten(1).shape[1], logits.shape[1], device=embedding.device, dtype=dtype
    )


def _apply(proxy: nn.Module, outputs: Outputs) -> Tensor:
    vectors = to_float32(outputs["embedding"]).flatten(1)
    logits: Tensor = proxy(match_dtype(proxy, vectors))
    return logits
