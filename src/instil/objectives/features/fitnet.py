"""Hints: the student regresses the teacher's intermediate features."""

from __future__ import annotations

from torch import Tensor, nn

from instil.core import Card
from instil.functional.errors import squared_error
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.objectives.bases.feature_objective import FeatureObjective


def fitnet_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Mean squared difference of two stages of one shape (N, ...); with ``reduction="none"`` one value a sample (Romero et al. 2015, eq. 3).

    The paper has half the sum over the elements, the authors' followers the mean, as here. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "fitnet_loss")
    return apply_reduction(squared_error(student, teacher), reduction)


class FitNet(FeatureObjective):
    """The student's stages, through an adapter each, near the teacher's; summed over the pairs."""

    card = Card(
        "FitNets: hints for thin deep nets",
        "https://arxiv.org/abs/1412.6550",
        "ICLR",
        2015,
        source="features",
        deviations="mean over the elements (as RepDistiller) where the paper has half their sum; 1x1 convolution as the regressor, "
        "none where the shapes agree; all pairs at once, in the paper one hint in a stage of its own",
        equation=r"\sum_l \frac{1}{CHW} \lVert r_l(f^s_l) - f^t_l \rVert_2^2",
        use="The plain baseline of feature losses, which others are to be compared with: any two nets, also of different families, at the cost of "
        "1x1 convolutions where channels differ.",
        pitfalls="The weight in RepDistiller and mdistiller is 100. Values follow the square of the scale of the teacher's features, which differs "
        "from stage to stage and between nets: look at the share of each pair. A student that spends its capacity on copying may answer worse; let "
        "the weight fall, or take few pairs.",
    )

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return fitnet_loss(connection(student), as_map(teacher), reduction="none")
