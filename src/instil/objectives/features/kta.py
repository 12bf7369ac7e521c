"""Knowledge adaptation: the student matches a compressed teacher stage, and its affinities."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from instil.core import Card, NonNegative, at_progress, closest, to_float32
from instil.functional.errors import sample_mean, squared_error
from instil.functional.feature_maps import as_map, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.objectives.bases.normed_objective import NormedObjective
from instil.objectives.features.factor_transfer import FactorNets

Form = Literal["positions", "channels"]
FORMS = ("positions", "channels")


def kta_loss(
    student: Tensor,
    teacher: Tensor,
    p: float = 1.0,
    q: float = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Feature adaptation loss of knowledge adaptation (He et al. 2019).

    Distance of two features that are flattened and divided by their ``q``-norm: the mean absolute
    difference for ``p = 1``, else the ``p``-norm of the difference.

    Args:
        student: adapted student features (N, C, H, W).
        teacher: compressed teacher features (N, C, H, W).
        p: order of the norm of the difference, >= 1.
        q: order of the norm that both features are divided by, >= 1.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> kta_loss(torch.ones(1, 1, 2, 2), torch.eye(2)[None, None])
        tensor(0.3536)
    """
    student, teacher = require_same_shape(student, teacher, "kta_loss")
    unit_student, unit_teacher = (
        F.normalize(side.flatten(1), p=q, dim=1) for side in (student, teacher)
    )
    difference = unit_student - unit_teacher
    if p == 1:
        return apply_reduction(sample_mean(difference.abs()), reduction)
    return apply_reduction(torch.linalg.vector_norm(difference, p, dim=1), reduction)


def kta_affinity_loss(
    student: Tensor, teacher: Tensor, form: Form = "positions", reduction: str = "mean"
) -> Tensor:
    """Affinity distillation loss of knowledge adaptation (He et al. 2019).

    ``form="positions"`` is the mean squared difference of the cosine similarities between all pairs
    of positions. ``form="channels"`` follows torchdistill: each channel is a unit vector over the
    positions, and the loss is the Frobenius norm of the difference of the outer products, divided
    by the number of positions and summed over the channels.

    Args:
        student: adapted student features (N, C, H, W).
        teacher: compressed teacher features (N, C, H, W).
        form: ``"positions"`` or ``"channels"``.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, or the form is unknown.

    Example:
        >>> import torch
        >>> kta_affinity_loss(torch.ones(1, 2, 1, 2), torch.eye(2).view(1, 2, 1, 2))
        tensor(0.5000)
    """
    student, teacher = require_same_shape(student, teacher, "kta_affinity_loss")
    if form not in FORMS:
        raise ValueError(f"form: unknown value. Expected one of {FORMS}; {closest(form, FORMS)}")
    if form == "positions":
        affinities = []
        for side in (student, teacher):
            unit = F.normalize(side.flatten(2), dim=1)
            affinities.append(unit.mT @ unit)
        return apply_reduction(squared_error(affinities[0], affinities[1]), reduction)
    unit_student, unit_teacher = (
        F.normalize(side.flatten(2), dim=2) for side in (student, teacher)
    )
    # ||u u' - v v'|| = sqrt(2) ||u - (u'v) v|| for unit vectors: no matrix of pairs is needed.
    cosine = (unit_student * unit_teacher).sum(2, keepdim=True)
    rest = torch.linalg.vector_norm(unit_student - cosine * unit_teacher, dim=2)
    return apply_reduction(math.sqrt(2) * rest.sum(1) / unit_student.shape[2], reduction)


class AdaptationNets(FactorNets):
    """Feature adapter, affinity adapter and the autoencoder of a teacher stage.

    Args:
        source: channels of the student stage.
        target: channels of the teacher stage.
        rate: channels of the compressed stage, as a share of ``target``.
        norm: normalisation of the feature adapter.
    """

    def __init__(self, source: int, target: int, rate: float, norm: str):
        super().__init__(source, target, rate, norm)
        self.affinity_adapter = nn.Conv2d(source, max(1, round(rate * target)), 3, padding=1)


class KTA(NormedObjective):
    """Adapted student features near those of a compressed teacher stage, and the same affinities.

    The teacher's stage is compressed by an autoencoder that learns from its reconstruction alone.

    ``affinity``: weight of the affinity term.
    ``form``: positions compares cosine similarities of positions, as the paper; channels compares outer products of each channel, as torchdistill.
    ``p``: order of the norm of the difference.
    ``q``: order of the norm that both features are divided by.
    ``rate``: channels of the compressed stage, as a share of the teacher's.
    ``reconstruction``: weight of the autoencoder's squared error; a schedule to 0 stops it.
    """

    deepest = True
    card = Card(
        "Knowledge Adaptation for Efficient Semantic Segmentation",
        "https://openaccess.thecvf.com/content_CVPR_2019/html/He_Knowledge_Adaptation_for_Efficient_Semantic_Segmentation_CVPR_2019_paper.html",
        "CVPR",
        2019,
        source="features",
        tasks=("classification", "segmentation"),
        zero_at_match=False,
        deviations="The autoencoder is trained beside the student, not in a stage before it, and no gradient of the other terms reaches it. The "
        "student stage is resized to the teacher's grid before the adapters. torchdistill's affinity is that of channels, not of positions: form. "
        "Of the paper only the abstract was available: it has a pre-trained autoencoder, and affinities over the whole image, as in the form "
        "with positions.",
        equation=r"\left\lVert \frac{A(f^s)}{\lVert A(f^s) \rVert_q} - \frac{E(f^t)}{\lVert E(f^t) \rVert_q} \right\rVert_p + \lambda "
        r"\frac{1}{(HW)^2} \sum_{ij} \big( \cos(B(f^s)_i, B(f^s)_j) - \cos(E(f^t)_i, E(f^t)_j) \big)^2 + \mu \lVert D(E(f^t)) - f^t \rVert_2^2",
        use="Segmentation with a student of another architecture: the compressed stage drops what the student cannot hold, and the affinities "
        "teach which positions belong together.",
        pitfalls="The affinity of positions takes memory with the square of their number. The entries of a feature of unit length are tiny: weights "
        "of some hundreds are needed, and they multiply the reconstruction too. The first compressed features are those of an untrained "
        "autoencoder: train it in a stage before, or let the weight start late.",
    )

    def __init__(
        self,
        affinity: NonNegative = 1.0,
        form: Form = "positions",
        p: Annotated[float, Gt(0)] = 1.0,
        q: Annotated[float, Gt(0)] = 2.0,
        rate: Annotated[float, Gt(0), Le(1)] = 0.5,
        reconstruction: NonNegative = 1.0,
        norm: Literal["group", "batch"] = "group",
        pairs: Pairs = "auto",
    ):
        super().__init__(norm, pairs)
        self.affinity, self.form, self.p, self.q = affinity, form, p, q
        self.rate, self.reconstruction = rate, reconstruction

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        """Make the adapters of one pair of stages.

        Raises:
            ValueError: if the teacher stage has one position, which has no affinity to another.
        """
        student, teacher = as_map(student), as_map(teacher)
        if teacher.shape[2:].numel() == 1:
            expected = f"Expected more than one position, got {tuple(teacher.shape)}."
            raise ValueError(f"pairs: a stage has no affinities. {expected} Leave that stage out.")
        rate = at_progress(self.rate, {})
        nets = AdaptationNets(student.shape[1], teacher.shape[1], rate, self.norm)
        words = f"{nets.affinity_adapter.out_channels} channels"
        return nets.to(student.device, to_float32(student).dtype), words

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        assert isinstance(connection, AdaptationNets)
        teacher = match_dtype(connection, to_float32(as_map(teacher)))
        grid = (teacher.shape[2], teacher.shape[3])
        resized = match_dtype(connection, resize(to_float32(as_map(student)), grid))
        adapted, compressed, decoded = connection(resized, teacher)
        related = connection.affinity_adapter(resized)
        values = kta_loss(adapted, compressed, self.p, self.q, "none")
        affinity = kta_affinity_loss(related, compressed, self.form, "none")
        error = squared_error(decoded, teacher)
        return values + self.affinity * affinity + self.reconstruction * error
