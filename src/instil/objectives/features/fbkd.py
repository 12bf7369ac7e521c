"""Feature-based distillation for detectors: attention-guided features, their means, and how each position goes with all others."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from instil.core import Card, NonNegative, Positive, closest, to_float32
from instil.functional.attention_maps import attention_weights, channel_strength, position_strength
from instil.functional.feature_maps import as_map, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["paper", "code"]
Weights = tuple[float, float, float, float]
WEIGHTS: Weights = (7e-5, 4e-3, 4e-3, 7e-5)


class Views(NamedTuple):
    """What is compared of one side: features (N, C, H, W), channel means (N, C), position means (N, 1, H, W) and relations (N, C, H, W)."""

    features: Tensor
    channels: Tensor
    positions: Tensor
    relations: Tensor


def fbkd_loss(
    student: Views,
    teacher: Views,
    mask: Tensor,
    weights: Weights = WEIGHTS,
    reduction: str = "mean",
) -> Tensor:
    """Lengths of the four differences, weighted (Zhang and Ma 2021); features are weighted by ``mask``, which broadcasts to them.

    A length of each sample, mean over these or, with ``reduction="none"``, one value a sample; with ``reduction="batch"`` one of the whole batch.
    """
    differences = [to_float32(a) - to_float32(b) for a, b in zip(student, teacher, strict=True)]
    differences[0] = differences[0] * to_float32(mask).sqrt()
    whole = reduction == "batch"
    lengths = [
        torch.linalg.vector_norm(d.flatten() if whole else d.flatten(1), dim=-1)
        for d in differences
    ]
    values = torch.stack(
        [weight * length for weight, length in zip(weights, lengths, strict=True)]
    ).sum(0)
    return values if whole else apply_reduction(values, reduction)


def fbkd_mask(
    student: Tensor,
    adapted: Tensor,
    teacher: Tensor,
    temperature: float = 0.1,
    form: Form = "paper",
) -> Tensor:
    """Where both sides' maps (N, C, H, W) are strong, without a gradient (Zhang and Ma 2021).

    ``paper``: softmax of both sides' strength together, positions times channels, (N, C, H, W); the student's channels are ``adapted`` ones, before
    which they need not be the teacher's. ``code``: mean of both sides' softmax over the positions, (N, 1, H, W).
    """
    if form == "code":
        mine, theirs = (
            attention_weights(position_strength(stage), temperature) for stage in (student, teacher)
        )
        return ((mine + theirs) / 2).detach()
    positions = attention_weights(
        position_strength(student) + position_strength(teacher), temperature
    )
    return (
        positions
        * attention_weights(channel_strength(adapted) + channel_strength(teacher), temperature)
    ).detach()


class NonLocal(nn.Module):
    """A map plus, at each position, what the others give it by the products of their embeddings; at first the map itself."""

    def __init__(self, channels: int, norm: str, stride: int = 1):
        super().__init__()
        middle, self.stride = max(1, channels // 2), stride
        self.value, self.query, self.key = (nn.Conv2d(channels, middle, 1) for _ in range(3))
        self.out = nn.Conv2d(middle, channels, 1, bias=False)
        self.norm = NORMS[norm](channels)
        for parameter in self.norm.parameters():
            nn.init.zeros_(parameter)

    def forward(self, stage: Tensor) -> Tensor:
        cell = [min(self.stride, side) for side in stage.shape[2:]]
        value, key = (F.max_pool2d(made(stage), cell).flatten(2) for made in (self.value, self.key))
        summary = value @ key.mT / key.shape[2]  # all pairs of positions without their matrix
        given = (summary @ self.query(stage).flatten(2)).view(len(stage), -1, *stage.shape[2:])
        return stage + self.norm(self.out(given))  # type: ignore[no-any-return]


class DetectionViews(nn.Module):
    """The views of both sides: the student's pass an adaptation each, and either side has a non-local block."""

    def __init__(self, source: int, target: int, norm: str, stride: int = 1):
        super().__init__()
        self.features, self.relations = nn.Conv2d(source, target, 1), nn.Conv2d(source, target, 1)
        self.channels, self.positions = nn.Linear(source, target), nn.Conv2d(1, 1, 3, padding=1)
        self.student_relations, self.teacher_relations = (
            NonLocal(source, norm, stride),
            NonLocal(target, norm, stride),
        )

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Views, Views]:
        adapted = (
            self.features(student),
            self.channels(student.mean((2, 3))),
            self.positions(student.mean(1, keepdim=True)),
        )
        mine = Views(*adapted, self.relations(self.student_relations(student)))
        return mine, Views(
            teacher,
            teacher.mean((2, 3)),
            teacher.mean(1, keepdim=True),
            self.teacher_relations(teacher),
        )


class FBKD(FeatureObjective):
    """Each student stage near the teacher's where either attends, in its means and in its non-local relations; summed over the pairs.

    Defaults as for two stage detectors.

    ``temperature``: of the attentions.
    ``features``: weight of the attention-guided features.
    ``channels``: weight of the means of the channels.
    ``positions``: weight of the means of the positions.
    ``relations``: weight of the non-local relations.
    ``stride``: side of the cells of which a position is related to one each, their largest responses.
    ``form``: paper takes the lengths sample by sample and a mask of positions and channels; code takes one length of the batch, the mean of two masks
    of positions and BatchNorm, which couple the samples.
    """

    card = Card(
        "Improve object detection with feature-based knowledge distillation: towards accurate and efficient detectors",
        "https://openreview.net/forum?id=uKhGRvM8QNH",
        "ICLR",
        2021,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "detection"),
        zero_at_match=False,
        deviations="form: 'code' is MMRazor's; the authors' code too averages the two attentions, and has the mask of channels for some detectors "
        "only. Means keep their sign, as in the code; the paper's strengths do not",
        equation=r"\sum_l \left[ w_f \left\lVert \sqrt{M} \odot (f^t - r_f(f^s)) \right\rVert_2 + w_c \lVert \bar f^t_c - r_c(\bar f^s_c) \rVert_2 "
        r"+ w_p \lVert \bar f^t_p - r_p(\bar f^s_p) \rVert_2 + w_r \lVert g^t(f^t) - r_r(g^s(f^s)) \rVert_2 \right], \quad M = HWC\, "
        r"\mathrm{softmax}_p \frac{A_p(f^s) + A_p(f^t)}{T}\; \mathrm{softmax}_c \frac{A_c(r_f(f^s)) + A_c(f^t)}{T}",
        use="Detectors and other dense nets with feature pyramids, without boxes or labels: objects are found by attention, and how positions go "
        "together is taught too. It costs two non-local blocks and four adaptations a pair; take a stride on large maps.",
        pitfalls="Lengths are not squared: their gradient does not vanish near a match, and they grow with the size of the map. Code in use "
        "multiplies these weights by 6; one stage detectors have larger ones, 4e-4 and 2e-2, at a temperature of 0.5. The teacher's non-local "
        "block is trained too, and may make the relations trivial.",
    )

    def __init__(
        self,
        temperature: Positive = 0.1,
        features: NonNegative = WEIGHTS[0],
        channels: NonNegative = WEIGHTS[1],
        positions: NonNegative = WEIGHTS[2],
        relations: NonNegative = WEIGHTS[3],
        stride: Annotated[int, Ge(1)] = 1,
        form: Form = "paper",
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        if form not in ("paper", "code"):
            raise ValueError(f"form: no form '{form}'; {closest(form, ('paper', 'code'))}")
        self.temperature, self.features, self.channels = temperature, features, channels
        self.positions, self.relations, self.stride, self.form = positions, relations, stride, form

    @property
    def couples(self) -> bool:
        """Whether one length of the whole batch is taken."""
        return self.form == "code"

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        made = DetectionViews(source, target, "batch" if self.couples else "group", self.stride)
        return made.to(
            student.device, to_float32(student).dtype
        ), "adaptations and two non-local blocks"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        teacher = match_dtype(connection, to_float32(as_map(teacher)))
        student = match_dtype(
            connection, resize(to_float32(as_map(student)), (teacher.shape[2], teacher.shape[3]))
        )
        mine, theirs = connection(student, teacher)
        mask = fbkd_mask(student, mine.features, teacher, self.temperature, self.form)
        weights = (self.features, self.channels, self.positions, self.relations)
        return fbkd_loss(mine, theirs, mask, weights, "batch" if self.couples else "none")
