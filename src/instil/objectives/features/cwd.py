"""Channel-wise distillation: channels match the distributions of the teacher over positions."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, Positive, check_bounds
from instil.functional.choices import require_choice
from instil.functional.divergences import softened_kl
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["channel", "spatial"]
FORMS = ("channel", "spatial")


@check_bounds
def cwd_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    temperature: Positive = 4.0,
    form: Form = "channel",
    reduction: str = "mean",
) -> Tensor:
    """Channel-wise distillation loss (Shu et al. 2021).

    KL divergence of distributions over positions or channels, multiplied by ``temperature ** 2``.

    Args:
        student_features: feature map (N, C, *grid).
        teacher_features: feature map (N, C, *grid).
        temperature: softmax temperature, > 0.
        form: ``"channel"`` normalises each channel over the positions, and averages over the
            channels; ``"spatial"`` normalises each position over the channels, and averages over
            the positions.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ, the form is unknown, or a distribution has one entry,
            which is always 1.

    Example:
        >>> import torch
        >>> cwd_loss(torch.zeros(1, 1, 2, 2), 4 * torch.eye(2)[None, None])
        tensor(1.7751)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "cwd_loss", 3
    )
    require_choice("form", form, FORMS)
    shape = tuple(student_features.shape)
    student_rows = student_features.flatten(2)
    teacher_rows = teacher_features.flatten(2)
    if form == "spatial":
        student_rows = student_rows.mT
        teacher_rows = teacher_rows.mT
    if student_rows.shape[2] == 1:
        least = "position" if form == "channel" else "channel"
        raise ValueError(
            f"features: every distribution of form '{form}' has one entry. Expected more than one "
            f"{least}, got {shape}. Leave this level out of pairs."
        )
    divergences = softened_kl(student_rows, teacher_rows, temperature)
    return apply_reduction(sample_mean(divergences) * temperature**2, reduction)


class CWD(FeatureObjective):
    """KL divergence of channel distributions over the positions; sum over the pairs.

    An adapter maps student features of another shape to the teacher's. To distil the logits of a
    segmentation network, tap its last layer as one of ``features``.
    """

    card = Card(
        "Channel-wise knowledge distillation for dense prediction",
        "https://arxiv.org/abs/2011.13256",
        "ICCV",
        2021,
        source="features",
        tasks=("classification", "segmentation", "detection"),
        published_weight=50.0,
        weight_setting="the code of CIRKD, Cityscapes, deepest features; with cwd on the logits of "
        "weight 3, kd of weight 1 and an adversarial loss",
        equation=r"\sum_l \frac{T^2}{C} \sum_c \mathrm{KL}\left( \mathrm{softmax}_p(f^t_{lc} / T) "
        r"\,\middle\Vert\, \mathrm{softmax}_p(r(f^s_l)_c / T) \right)",
        use="Dense prediction: it transfers the regions where each channel, or the map of each "
        "class, is strong. Use it on features, on the logits of a segmentation network, or on "
        "both. Its only parameters are 1x1 convolutions where channels differ.",
        pitfalls="On logits the authors use 3, and MMRazor 5 at a temperature of 1. A constant "
        "added to a channel changes nothing: the level of a channel is not transferred, so keep "
        "the label loss.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the distributions")] = 4.0,
        form: Annotated[
            Form,
            Doc(
                "channel: each channel is a distribution over the positions; spatial: each "
                "position is a distribution over the channels"
            ),
        ] = "channel",
        pairs: Annotated[
            Pairs,
            Doc(
                "[[student level, teacher level], ...], 0: the shallowest; auto: by size and depth"
            ),
        ] = "auto",
    ):
        super().__init__(pairs)
        self.temperature = temperature
        self.form = form

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        """Create the adapter of one pair of levels.

        Raises:
            ValueError: if a distribution of the teacher level has one entry.
        """
        adapter, description = super().connect(student, teacher)
        # The loss of the dry batch raises the error before training starts.
        cwd_loss(as_map(teacher), as_map(teacher), form=self.form)
        return adapter, description

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        student_map = connection(student_features)
        return cwd_loss(student_map, as_map(teacher_features), self.temperature, self.form, "none")
