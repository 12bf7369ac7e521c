"""Several teachers with learned sample-wise weights, feature hints and angle relations."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import check_bounds
from instil.core import Batch, Card, NonNegative, Objective, Outputs, Positive, to_float32
from instil.functional.directions import angle_cosines, l2_normalize
from instil.functional.divergences import kl_from_log_probs, tempered_log_softmax
from instil.functional.ensembles import members, require_teacher_stack, stack_teacher_logits
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import describe_pair, feature_levels, match_levels
from instil.functional.teacher_mixture import (
    levels_of_member,
    mixture_log_probability,
    teacher_log_weights,
)
from instil.items import Items
from instil.modules.adapters import Adapter, match_dtype


@check_bounds
def amtml_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    log_weights: Tensor,
    temperature: Positive = 5.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence from the integrated soft target to the student (Liu et al. 2020).

    The divergence is multiplied by ``temperature ** 2``; the weights have a gradient too.

    Args:
        student_logits: (N, C).
        teacher_logits: (K, N, C), one entry for each teacher.
        log_weights: log-weights of the teachers (K, N).
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> teacher_logits = torch.stack([torch.eye(3)[:2], 2 * torch.eye(3)[:2]])
        >>> amtml_kd_loss(torch.zeros(2, 3), teacher_logits, torch.full((2, 2), 0.5).log())
        tensor(0.2663)
    """
    require_teacher_stack(student_logits, teacher_logits)
    target = mixture_log_probability(teacher_logits, log_weights, temperature)
    values = kl_from_log_probs(target, student_logits, temperature)
    return apply_reduction(values * temperature**2, reduction)


def amtml_kd_angle_loss(student_probability: Tensor, target: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles between any three samples.

    Args:
        student_probability: student probabilities (N, C).
        target: target probabilities (N, C); no gradient flows to them.

    Returns:
        Scalar, the mean over all N * N * N triplets.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> amtml_kd_angle_loss(torch.eye(3), torch.eye(3).cumsum(1))
        tensor(0.0124)
    """
    pair = require_same_shape(student_probability, target.detach(), "amtml_kd_angle_loss")
    student, target = pair
    total = F.smooth_l1_loss(angle_cosines(student), angle_cosines(target), reduction="sum")
    return total / max(1, len(student) ** 3)


def amtml_kd_hint_loss(
    student_features: Tensor, teacher_features: Tensor, reduction: str = "mean"
) -> Tensor:
    """Mean squared difference of two feature maps, the teacher's normalised at each position.

    Args:
        student_features: (N, C, H, W).
        teacher_features: (N, C, H, W); each position is scaled to length 1 over the channels.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> amtml_kd_hint_loss(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
        tensor(0.5000)
    """
    student, teacher = require_same_shape(student_features, teacher_features, "amtml_kd_hint_loss")
    return apply_reduction(squared_error(student, l2_normalize(teacher, 1)), reduction)


class AMTMLKD(Objective):
    """Adaptive multi-teacher KD: weighted soft targets, hints from all members, and angles.

    The paired feature levels are split into one group for each member, from shallow to deep. After
    ``build`` the attribute ``describe_pair`` describes which member guides which level.
    """

    card = Card(
        "Adaptive multi-teacher multi-level knowledge distillation",
        "https://arxiv.org/abs/2103.04062",
        "Neurocomputing",
        2020,
        source="logits",
        algorithms=("multi-teacher", "adaptive"),
        labels=("single",),
        zero_at_match=False,
        deviations="The weights are trained together with the student to the end; the code trains "
        "them in separate epochs. KL is summed over the classes; the code averages it. Angles are "
        "between probabilities of both sides; in the code the student's are logarithms, and there "
        "are distances too. Each member guides the levels of its group (the paper's multi-group "
        "hints); in the released code all members guide one level.",
        equation=r"T^2 \mathrm{KL}\Big( \sum_k w_k p^{t_k}_T \Big\Vert p^s_T \Big) + \lambda_a "
        r"\mathcal{L}_{angle} + \lambda_h \sum_k \sum_{l \in G_k} \frac{1}{CHW} \lVert r_{kl}(\bar "
        r"f^s_l) - \bar f^{t_k}_l \rVert_2^2, \quad w_k = \mathrm{softmax}_k \, v^\top (\theta_k "
        r"\odot \beta)",
        use="Several teachers with different knowledge, without labels: the weights depend on the "
        "sample. It costs the teachers' forward passes, a 1x1 convolution for each level and one "
        "vector for each teacher.",
        pitfalls="The released code has weight 0.3 for cross-entropy, 1.4 divided by the number of "
        "classes for the KL, and 1 for angles, distances and hints. The loss also "
        "falls when the weights move to the teacher that the student already agrees with: compare "
        "with the plain ensemble. Angles need memory for N x N x N numbers and couple the samples. "
        "The order of the teachers determines who guides which level: list the one with the best "
        "shallow levels first.",
    )
    needs: ClassVar = {
        "student": (("features",), ("logits",)),
        "teacher": (("members", "features"), ("members", "logits")),
    }
    items = Items(per_sample=True)

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of all logits")] = 5.0,
        angle: Annotated[
            NonNegative, Doc("weight of the angles between samples. 0: samples are independent")
        ] = 1.0,
        hint: Annotated[NonNegative, Doc("weight of the feature hints")] = 1.0,
        decay: Annotated[
            NonNegative,
            Doc("weight decay of the weight predictor; keeps the loss above 0 at a match"),
        ] = 0.1,
    ):
        super().__init__()
        self.temperature = temperature
        self.angle = angle
        self.hint = hint
        self.decay = decay
        self.relates = bool(angle)  # true for a schedule that starts at zero
        self.groups: list[list[tuple[int, int]]] = []  # per member: (student level, member's level)
        self.plan: list[str] = []
        self.adapters = nn.ModuleList()

    @property
    def couples(self) -> bool:
        return self.relates

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the factors and the adapters; ValueError if a member has no features."""
        student_levels = feature_levels(student)
        outputs = members(teacher)
        self.groups = []
        self.plan = []
        self.adapters = nn.ModuleList()
        for index, member in enumerate(outputs):
            self._add_member(index, len(outputs), student_levels, member)
        deepest = student_levels[-1]
        width = as_map(deepest).shape[1]
        dtype = to_float32(deepest).dtype
        factors = torch.randn(len(outputs), width, device=deepest.device, dtype=dtype) / width**0.5
        self.factors = nn.Parameter(factors)
        vector = torch.randn(width, device=deepest.device, dtype=dtype) / width**0.5
        self.vector = nn.Parameter(vector)

    def _add_member(
        self, index: int, num_members: int, student_levels: tuple[Tensor, ...], member: Outputs
    ) -> None:
        """Pair the levels of one member with the student's and create their adapters."""
        if "features" not in member:
            raise ValueError(
                f"teacher {index}: features are missing. Expected features, got "
                f"{', '.join(member)}. Name their module in the taps of the teacher."
            )
        member_levels = feature_levels(member)
        pairs = levels_of_member(match_levels(student_levels, member_levels), index, num_members)
        level_adapters = [Adapter(student_levels[i], member_levels[j]) for i, j in pairs]
        self.groups.append(pairs)
        self.adapters.append(nn.ModuleList(level_adapters))
        for (i, j), adapter in zip(pairs, level_adapters, strict=True):
            line = describe_pair((i, j), student_levels[i], member_levels[j], str(adapter))
            self.plan.append(f"teacher {index}: {line}")

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_logits = student["logits"]
        teacher_logits = stack_teacher_logits(student_logits, members(teacher))
        log_weights = self.log_weights(student)
        loss = amtml_kd_loss(student_logits, teacher_logits, log_weights, self.temperature, "none")
        loss = loss + self.decay * (self.factors.square().sum() + self.vector.square().sum())
        if self.hint:
            loss = loss + self.hint * self.hints(student, teacher)
        if not self.couples:
            return loss
        probability = tempered_log_softmax(student_logits, self.temperature).exp()
        target = mixture_log_probability(teacher_logits, log_weights, self.temperature).exp()
        return loss.mean() + self.angle * amtml_kd_angle_loss(probability, target)

    def log_weights(self, student: Outputs) -> Tensor:
        """Log-weights (K, N) of the members, from the max-pooled deepest level of the student."""
        level = to_float32(as_map(feature_levels(student)[-1]))
        pooled = level.amax(tuple(range(2, level.ndim))).to(self.factors.dtype)
        return teacher_log_weights(pooled, self.factors, self.vector)

    def hints(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Sum of the hint losses of all members, (N,)."""
        student_levels = feature_levels(student)
        terms = []
        for pairs, layers, member in zip(self.groups, self.adapters, members(teacher), strict=True):
            assert isinstance(layers, nn.ModuleList)
            member_levels = feature_levels(member)
            for (i, j), adapter in zip(pairs, layers, strict=True):
                direction = l2_normalize(as_map(student_levels[i]), 1)
                student_features = adapter(match_dtype(adapter, direction))
                values = amtml_kd_hint_loss(student_features, as_map(member_levels[j]), "none")
                terms.append(values)
        return torch.stack(terms).sum(0)
