"""Channel-wise distillation: each channel of the student is strong at the positions at which the teacher's is."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from instil.core import Card, Positive, closest
from instil.functional.divergences import softened_kl
from instil.functional.errors import sample_mean
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs
from instil.objectives.bases.feature_objective import FeatureObjective

Form = Literal["channel", "spatial"]


def cwd_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    form: Form = "channel",
    reduction: str = "mean",
) -> Tensor:
    """KL divergence times temperature^2 of two maps of one shape (N, C, H, W) as distributions (Shu et al. 2021).

    ``form="channel"``: each channel is one over the positions; mean over the channels. ``form="spatial"``: each position is one over the channels;
    mean over the positions. With ``reduction="none"`` one value a sample. Raises ValueError where the shapes differ, and where a distribution
    has one entry only: it would be 1 whatever the student does.
    """
    student, teacher = require_same_shape(student, teacher, "cwd_loss")
    if form not in ("channel", "spatial"):
        raise ValueError(f"form: no form '{form}'; {closest(form, ('channel', 'spatial'))}")
    mine, theirs = (
        stage.flatten(2) if form == "channel" else stage.flatten(2).mT
        for stage in (student, teacher)
    )
    if mine.shape[2] == 1:
        least = "position" if form == "channel" else "channel"
        raise ValueError(
            f"channel-wise distillation (form: '{form}') needs more than one {least}, not {tuple(student.shape)}"
        )
    return apply_reduction(
        sample_mean(softened_kl(mine, theirs, temperature)) * temperature**2, reduction
    )


class CWD(FeatureObjective):
    """Channel by channel, the student is strong where the teacher is; summed over the pairs.

    Stages pass an adapter each where they differ. To distil the logits of a segmentation net, tap its last layer as one of ``features``.

    ``temperature``: of the distributions.
    ``form``: channel makes a distribution over the positions of each channel; spatial one over the channels of each position.
    """

    card = Card(
        "Channel-wise knowledge distillation for dense prediction",
        "https://arxiv.org/abs/2011.13256",
        "ICCV",
        2021,
        source="features",
        tasks=("classification", "segmentation", "detection"),
        equation=r"\sum_l \frac{T^2}{C} \sum_c \mathrm{KL}\left( \mathrm{softmax}_p(f^t_{lc} / T) \,\middle\Vert\, \mathrm{softmax}_p(r(f^s_l)_c / "
        r"T) \right)",
        use="Dense prediction: each channel, or each class's map, is taught where it is strong. It is taken on features, on the logits of a "
        "segmentation net, or on both; its only parameters are 1x1 convolutions where channels differ.",
        pitfalls="Weights in use are 3 on logits and 50 on features; MMRazor's PSPNet has 5 on logits at a temperature of 1. A constant added to a "
        "channel changes nothing: its level is not taught, so keep the label's loss.",
    )

    def __init__(self, temperature: Positive = 4.0, form: Form = "channel", pairs: Pairs = "auto"):
        super().__init__(pairs)
        self.temperature, self.form = temperature, form

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made, words = super().connect(student, teacher)
        cwd_loss(
            as_map(teacher), as_map(teacher), form=self.form
        )  # refuses a stage with one position
        return made, words

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return cwd_loss(connection(student), as_map(teacher), self.temperature, self.form, "none")
