"""Knowledge adaptation: the student matches a compressed teacher level and its affinities."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import Card, NonNegative, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.errors import sample_mean, squared_error
from instil.functional.feature_maps import as_map, grid_of, require_same_shape, resize
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.modules.adapters import match_dtype
from instil.modules.connectors import checked_norm, convolution
from instil.objectives.bases.feature_objective import FeatureObjective
from instil.objectives.features.factor_transfer import FactorNets

Form = Literal["positions", "channels"]
FORMS = ("positions", "channels")


@check_bounds
def kta_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    p: Annotated[float, Gt(0)] = 1.0,
    q: Annotated[float, Gt(0)] = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Feature adaptation loss of knowledge adaptation (He et al. 2019).

    Distance of two features that are flattened and divided by their ``q``-norm: the mean absolute
    difference for ``p = 1``, else the ``p``-norm of the difference.

    Args:
        student_features: adapted student features (N, C, *grid).
        teacher_features: compressed teacher features (N, C, *grid).
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
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "kta_loss", 2
    )
    unit_student = F.normalize(student_features.flatten(1), p=q, dim=1)
    unit_teacher = F.normalize(teacher_features.flatten(1), p=q, dim=1)
    difference = unit_student - unit_teacher
    if p == 1:
        return apply_reduction(sample_mean(difference.abs()), reduction)
    return apply_reduction(torch.linalg.vector_norm(difference, p, dim=1), reduction)


def kta_affinity_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    form: Form = "positions",
    reduction: str = "mean",
) -> Tensor:
    """Affinity distillation loss of knowledge adaptation (He et al. 2019).

    ``form="positions"`` is the mean squared difference of the cosine similarities between all pairs
    of positions. ``form="channels"`` follows torchdistill: each channel is a unit vector over the
    positions. The loss is then the Frobenius norm of the difference of the outer products, divided
    by the number of positions and summed over the channels.

    Args:
        student_features: adapted student features (N, C, *grid).
        teacher_features: compressed teacher features (N, C, *grid).
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
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "kta_affinity_loss", 3
    )
    require_choice("form", form, FORMS)
    student_rows, teacher_rows = student_features.flatten(2), teacher_features.flatten(2)
    if form == "positions":
        student_affinity = _position_affinity(student_rows)
        return apply_reduction(
            squared_error(student_affinity, _position_affinity(teacher_rows)), reduction
        )
    unit_student = F.normalize(student_rows, dim=2)
    unit_teacher = F.normalize(teacher_rows, dim=2)
    # ||u u' - v v'|| = sqrt(2) ||u - (u'v) v|| for unit vectors: no matrix of pairs is needed.
    cosine = (unit_student * unit_teacher).sum(2, keepdim=True)
    rest = torch.linalg.vector_norm(unit_student - cosine * unit_teacher, dim=2)
    return apply_reduction(math.sqrt(2) * rest.sum(1) / unit_student.shape[2], reduction)


def _position_affinity(rows: Tensor) -> Tensor:
    """Cosine similarities between all pairs of positions of (N, C, P): (N, P, P)."""
    unit = F.normalize(rows, dim=1)
    return unit.mT @ unit


class AdaptationNets(FactorNets):
    """Feature adapter, affinity adapter and the autoencoder of a teacher level.

    Args:
        source: channels of the student level.
        target: channels of the teacher level.
        rate: channels of the compressed level, as a share of ``target``.
        norm: normalisation of the feature adapter.
        dims: number of dimensions of the grid, 2 or 3.
    """

    def __init__(self, source: int, target: int, rate: float, norm: str, dims: int = 2):
        super().__init__(source, target, rate, norm, dims)
        self.num_factors = max(1, round(rate * target))
        self.affinity_adapter = convolution(dims, source, self.num_factors, 3)


class KTA(FeatureObjective):
    """Adapted student features near those of a compressed teacher level, and equal affinities.

    An autoencoder compresses the teacher level. It is trained by its reconstruction error alone.
    """

    deepest = True
    card = Card(
        "Knowledge Adaptation for Efficient Semantic Segmentation",
        "https://openaccess.thecvf.com/content_CVPR_2019/html/"
        "He_Knowledge_Adaptation_for_Efficient_Semantic_Segmentation_CVPR_2019_paper.html",
        "CVPR",
        2019,
        source="features",
        tasks=("classification", "segmentation"),
        zero_at_match=False,
        deviations="The autoencoder is trained together with the student, not in an earlier "
        "stage, and receives no gradient of the other terms. The student level is resized to the "
        "teacher's grid before the adapters. torchdistill's affinity relates channels, not "
        "positions (option form). The form positions has not been compared with the text of the "
        "paper yet.",
        equation=r"\left\lVert \frac{A(f^s)}{\lVert A(f^s) \rVert_q} - \frac{E(f^t)}{\lVert "
        r"E(f^t) \rVert_q} \right\rVert_p + \lambda \frac{1}{(HW)^2} \sum_{ij} \big( "
        r"\cos(B(f^s)_i, B(f^s)_j) - \cos(E(f^t)_i, E(f^t)_j) \big)^2 + \mu \lVert D(E(f^t)) - "
        r"f^t \rVert_2^2",
        use="Segmentation with a student of another architecture. The compressed level omits "
        "details that the student cannot represent, and the affinities transfer which positions "
        "belong together.",
        pitfalls="Memory for the affinity of positions grows with the square of their number. The "
        "entries of features of unit length are tiny: weights of some hundreds are needed, and "
        "they multiply the reconstruction too. The first compressed features come from an "
        "untrained autoencoder: train it in an earlier stage, or start the weight late.",
    )

    def __init__(
        self,
        affinity: Annotated[NonNegative, Doc("weight of the affinity term")] = 1.0,
        form: Annotated[
            Form,
            Doc(
                "positions: cosine similarities of positions, as in the paper; channels: outer "
                "products of each channel, as in torchdistill"
            ),
        ] = "positions",
        p: Annotated[float, Gt(0), Doc("order of the norm of the difference")] = 1.0,
        q: Annotated[
            float, Gt(0), Doc("order of the norm that both features are divided by")
        ] = 2.0,
        rate: Annotated[
            float,
            Gt(0),
            Le(1),
            Doc("channels of the compressed level, as a share of the teacher's channels"),
        ] = 0.5,
        reconstruction: Annotated[
            NonNegative,
            Doc("weight of the autoencoder's mean squared error; a schedule to 0 stops it"),
        ] = 1.0,
        norm: Annotated[
            Literal["group", "batch"],
            Doc("normalisation of the feature adapter: group (per sample) or batch (BatchNorm)"),
        ] = "group",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: the deepest levels"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.norm = norm
        self.connector_norm = checked_norm(norm)
        self.affinity = affinity
        self.form = form
        self.p = p
        self.q = q
        self.rate = rate
        self.reconstruction = reconstruction

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        """Create the adapters of one pair of levels.

        Raises:
            ValueError: if the teacher level has one position, which has no affinity to another.
        """
        student, teacher = as_map(student), as_map(teacher)
        if teacher.shape[2:].numel() == 1:
            expected = f"Expected more than one position, got {tuple(teacher.shape)}."
            raise ValueError(f"pairs: a level has no affinities. {expected} Leave it out.")
        rate = at_progress(self.rate, {})
        channels = student.shape[1], teacher.shape[1]
        nets = AdaptationNets(*channels, rate, self.norm, teacher.ndim - 2)
        description = f"{nets.num_factors} channels"
        return nets.to(student.device, to_float32(student).dtype), description

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        assert isinstance(connection, AdaptationNets)
        teacher_map = match_dtype(connection, to_float32(as_map(teacher_features)))
        student_map = resize(to_float32(as_map(student_features)), grid_of(teacher_map))
        student_map = match_dtype(connection, student_map)
        adapted, compressed, decoded = connection(student_map, teacher_map)
        related = connection.affinity_adapter(student_map)
        values = kta_loss(adapted, compressed, self.p, self.q, "none")
        affinity = kta_affinity_loss(related, compressed, self.form, "none")
        error = squared_error(decoded, teacher_map)
        return values + self.affinity * affinity + self.reconstruction * error
