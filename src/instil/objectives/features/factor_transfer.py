"""Factor transfer: a translator of the student meets a paraphraser of the teacher, in units of neither."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from instil.core import Card, NonNegative, at_progress, closest, to_float32
from instil.functional.attention_maps import attention_map
from instil.functional.errors import sample_mean, squared_error
from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS
from instil.objectives.bases.normed_objective import NormedObjective

Form = Literal["paper", "attention"]
Distance = Literal["l1", "l2"]
SLOPE = 0.1  # of the leaky ReLUs


def factor_transfer_loss(
    student: Tensor,
    teacher: Tensor,
    form: Form = "paper",
    distance: Distance = "l1",
    power: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Distance of two factors (N, C, H, W) at unit length (Kim et al. 2018).

    ``form="paper"``: the factor is flattened; ``l1`` is the mean absolute difference, ``l2`` its length. ``form="attention"``: its mean abs(x) **
    ``power`` over the channels; ``l1`` and ``l2`` are the mean absolute and squared difference. With ``reduction="none"`` one value a sample.
    Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "factor_transfer_loss")
    for name, value, known in (
        ("form", form, ("paper", "attention")),
        ("distance", distance, ("l1", "l2")),
    ):
        if value not in known:
            raise ValueError(f"{name}: no {name} '{value}'; {closest(value, known)}")
    mine, theirs = (
        F.normalize(f.flatten(1), dim=1) if form == "paper" else attention_map(f, power)
        for f in (student, teacher)
    )
    difference = mine - theirs
    if distance == "l1":
        values = sample_mean(difference.abs())
    else:
        values = (
            torch.linalg.vector_norm(difference, dim=1)
            if form == "paper"
            else difference.square().mean(1)
        )
    return apply_reduction(values, reduction)


def _layers(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: tuple[int, ...], norm: str
) -> nn.Sequential:
    parts = [
        (kind(a, b, 3, padding=1), NORMS[norm](b), nn.LeakyReLU(SLOPE))
        for a, b in itertools.pairwise(widths)
    ]
    return nn.Sequential(*itertools.chain(*parts))


class FactorNets(nn.Module):
    """The translator of a student stage, and the paraphraser of a teacher stage with the decoder that it is trained with."""

    def __init__(self, source: int, target: int, rate: float, norm: str):
        super().__init__()
        factors = max(1, round(rate * target))
        self.translator = _layers(nn.Conv2d, (source, source, factors, factors), norm)
        self.paraphraser = _layers(nn.Conv2d, (target, target, factors, factors), "none")
        self.decoder = _layers(nn.ConvTranspose2d, (factors, factors, target, target), "none")[
            :-1
        ]  # the teacher's stage may be negative

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The factors of both sides, the teacher's without a gradient, and what the decoder makes of the teacher's."""
        factor = self.paraphraser(teacher)
        return self.translator(student), factor.detach(), self.decoder(factor)


class FactorTransfer(NormedObjective):
    """Each student stage, translated, near the teacher's paraphrased; summed over the pairs.

    The paraphraser is an autoencoder of the teacher's stage that learns beside the student, from the squared error of its reconstruction alone.

    ``rate``: factors of a stage, as a share of the teacher's channels.
    ``distance``: of the factors.
    ``form``: paper compares whole factors; attention their strength at each position, as RepDistiller has it.
    ``reconstruction``: weight of the paraphraser's own loss, mean over the elements; a schedule to 0 stops it.
    """

    card = Card(
        "Paraphrasing complex network: network compression via factor transfer",
        "https://arxiv.org/abs/1802.04977",
        "NeurIPS",
        2018,
        source="features",
        zero_at_match=False,
        deviations="the paraphraser is trained beside the student, not in a stage before it, and no gradient of the transfer reaches it; its decoder "
        "ends without a ReLU, as a teacher's stage may. form: 'attention' is RepDistiller's. norm: 'batch', in the translator, is the code's",
        equation=r"\sum_l \frac{1}{M} \left\lVert \frac{F^s_l}{\lVert F^s_l \rVert_2} - \mathrm{sg} \frac{F^t_l}{\lVert F^t_l \rVert_2} "
        r"\right\rVert_1 + \lambda \frac{1}{CHW} \lVert d(F^t_l) - f^t_l \rVert_2^2, \quad F^s = \mathrm{translator}(f^s), \; F^t = "
        r"\mathrm{paraphraser}(f^t)",
        use="Convolutional nets whose features are in no common units: either side is translated first. It costs nine 3x3 convolutions a pair, of "
        "the widths of both stages, more than most feature losses.",
        pitfalls="Weights are 500 (authors) and 1000 (torchdistill, ResNet18 <- ResNet34 on ImageNet), as the entries of a factor of unit length "
        "are tiny; RepDistiller has 200 for form: attention. The recipe's weight multiplies the reconstruction too: divide that option by it. The "
        "first factors are those of an untrained paraphraser: train it in a stage before, or let the weight start late.",
    )

    def __init__(
        self,
        rate: Annotated[float, Gt(0), Le(1)] = 0.5,
        distance: Distance = "l1",
        form: Form = "paper",
        reconstruction: NonNegative = 1.0,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.rate, self.distance, self.form, self.reconstruction = (
            rate,
            distance,
            form,
            reconstruction,
        )

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        source, target = as_map(student).shape[1], as_map(teacher).shape[1]
        made = FactorNets(source, target, at_progress(self.rate, {}), self.norm)
        return made.to(
            student.device, to_float32(student).dtype
        ), f"{max(1, round(at_progress(self.rate, {}) * target))} factors"

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        teacher = match_dtype(connection, to_float32(as_map(teacher)))
        resized = resize(to_float32(as_map(student)), (teacher.shape[2], teacher.shape[3]))
        mine, theirs, again = connection(match_dtype(connection, resized), teacher)
        transfer = factor_transfer_loss(mine, theirs, self.form, self.distance, reduction="none")
        error: Tensor = squared_error(again, teacher)
        return transfer + self.reconstruction * error
