"""Factor transfer: translated student features match paraphrased teacher features."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import Card, NonNegative, to_float32
from instil.functional.attention_maps import attention_map
from instil.functional.choices import require_choice
from instil.functional.errors import sample_mean, squared_error
from instil.functional.feature_maps import as_map, grid_of, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS, checked_norm
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["paper", "attention"]
Distance = Literal["l1", "l2"]
SLOPE = 0.1
"""Negative slope of the leaky ReLUs."""


def factor_transfer_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    form: Form = "paper",
    distance: Distance = "l1",
    power: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Factor transfer loss: distance of two factors at unit length (Kim et al. 2018).

    Args:
        student_features: factors (N, C, *grid) of the student.
        teacher_features: factors (N, C, *grid) of the teacher.
        form: ``"paper"`` compares the flattened factors; ``"attention"`` compares their attention
            maps, the mean of ``abs(x) ** power`` over the channels.
        distance: ``"l1"`` is the mean absolute difference; ``"l2"`` is the length of the difference
            for ``form="paper"`` and the mean squared difference for ``form="attention"``.
        power: exponent of the attention maps.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or the form or the distance is unknown.

    Example:
        >>> import torch
        >>> factor_transfer_loss(torch.ones(1, 1, 2, 2), torch.eye(2)[None, None])
        tensor(0.3536)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "factor_transfer_loss", 2
    )
    require_choice("form", form, ("paper", "attention"))
    require_choice("distance", distance, ("l1", "l2"))
    if form == "paper":
        student_factor = F.normalize(student_features.flatten(1), dim=1)
        teacher_factor = F.normalize(teacher_features.flatten(1), dim=1)
    else:
        student_factor = attention_map(student_features, power)
        teacher_factor = attention_map(teacher_features, power)
    difference = student_factor - teacher_factor
    if distance == "l1":
        values = sample_mean(difference.abs())
    elif form == "paper":
        values = torch.linalg.vector_norm(difference, dim=1)
    else:
        values = difference.square().mean(1)
    return apply_reduction(values, reduction)


CONVOLUTIONS: dict[int, tuple[type[nn.Module], type[nn.Module]]] = {
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}
"""Convolution and transposed convolution, by the number of dimensions of the grid."""


def _layers(kind: Callable[..., nn.Module], widths: tuple[int, ...], norm: str) -> nn.Sequential:
    """3x3 convolutions from each width to the next, each with a norm and a leaky ReLU."""
    modules: list[nn.Module] = []
    for source, target in itertools.pairwise(widths):
        modules.append(kind(source, target, 3, padding=1))
        modules.append(NORMS[norm](target))
        modules.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*modules)


class FactorNets(nn.Module):
    """Translator of a student level, and paraphraser of a teacher level with its decoder.

    Args:
        source: channels of the student level.
        target: channels of the teacher level.
        rate: channels of a factor, as a share of ``target``.
        norm: normalisation of the translator.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, source: int, target: int, rate: float, norm: str, dims: int = 2):
        super().__init__()
        factors = max(1, round(rate * target))
        forward_kind, backward_kind = CONVOLUTIONS[dims]
        self.translator = _layers(forward_kind, (source, source, factors, factors), norm)
        self.paraphraser = _layers(forward_kind, (target, target, factors, factors), "none")
        decoder = _layers(backward_kind, (factors, factors, target, target), "none")
        # Without the last ReLU: teacher features may be negative.
        self.decoder = decoder[:-1]

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the factors of both sides and the reconstruction.

        Args:
            student: feature map (N, source, *grid).
            teacher: feature map (N, target, *grid).

        Returns:
            Student factor, teacher factor without gradient, and reconstructed teacher features.
        """
        factor = self.paraphraser(teacher)
        return self.translator(student), factor.detach(), self.decoder(factor)


class FactorTransfer(FeatureObjective):
    """Translated student levels near the paraphrased teacher levels; sum over the pairs.

    The paraphraser is an autoencoder of the teacher level. It is trained together with the student,
    by its reconstruction error alone.
    """

    card = Card(
        "Paraphrasing complex network: network compression via factor transfer",
        "https://arxiv.org/abs/1802.04977",
        "NeurIPS",
        2018,
        source="features",
        zero_at_match=False,
        published_weight=500.0,
        weight_setting="the authors' code, CIFAR-10; with reconstruction: 0.002 the paraphraser "
        "has the weight 1",
        deviations="The paraphraser is trained together with the student, not in an earlier "
        "stage, and receives no gradient of the transfer loss. Its decoder ends without a ReLU, "
        "because teacher features may be negative. form: 'attention' is that of RepDistiller. "
        "norm: 'batch', in the translator, is that of the code.",
        equation=r"\sum_l \frac{1}{M} \left\lVert \frac{F^s_l}{\lVert F^s_l \rVert_2} - "
        r"\mathrm{sg} \frac{F^t_l}{\lVert F^t_l \rVert_2} \right\rVert_1 + \lambda \frac{1}{CHW} "
        r"\lVert d(F^t_l) - f^t_l \rVert_2^2, \quad F^s = \mathrm{translator}(f^s), \; F^t = "
        r"\mathrm{paraphraser}(f^t)",
        use="For convolutional networks whose features have no common units: both sides are "
        "translated first. It costs nine 3x3 convolutions per pair, of the widths of both levels, "
        "which is more than most feature losses.",
        pitfalls="The entries of a factor of unit length are tiny, so that the weight must be "
        "large: torchdistill uses 1000 on ImageNet, and RepDistiller 200 for form: attention. The "
        "recipe's weight multiplies the reconstruction too: divide that option by it. The first "
        "factors come from an untrained paraphraser: train it in an earlier stage, or start the "
        "weight late.",
    )

    def __init__(
        self,
        rate: Annotated[
            float, Gt(0), Le(1), Doc("channels of a factor, as a share of the teacher's channels")
        ] = 0.5,
        distance: Annotated[Distance, Doc("distance of the factors: l1 or l2")] = "l1",
        form: Annotated[
            Form,
            Doc("paper: whole factors; attention: their attention maps, as in RepDistiller"),
        ] = "paper",
        reconstruction: Annotated[
            NonNegative,
            Doc("weight of the paraphraser's mean squared error; a schedule to 0 stops it"),
        ] = 1.0,
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalisation of the translator: group (per sample) or batch (the authors' "
                "BatchNorm, couples the samples)"
            ),
        ] = "group",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.rate = rate
        self.distance = distance
        self.form = form
        self.reconstruction = reconstruction

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        teacher_map = as_map(teacher)
        source, target, dims = as_map(student).shape[1], teacher_map.shape[1], teacher_map.ndim - 2
        rate = at_progress(self.rate, {})
        nets = FactorNets(source, target, rate, self.norm, dims)
        description = f"{max(1, round(rate * target))} factors"
        return nets.to(student.device, to_float32(student).dtype), description

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        teacher_map = match_dtype(connection, to_float32(as_map(teacher_features)))
        student_map = resize(to_float32(as_map(student_features)), grid_of(teacher_map))
        student_factor, teacher_factor, reconstructed = connection(
            match_dtype(connection, student_map), teacher_map
        )
        transfer = factor_transfer_loss(
            student_factor, teacher_factor, self.form, self.distance, reduction="none"
        )
        error: Tensor = squared_error(reconstructed, teacher_map)
        return transfer + self.reconstruction * error
