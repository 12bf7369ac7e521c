"""Scale-decoupled distillation: a logit loss for each region of the last feature map."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    to_float32,
)
from instil.functional.choices import require_choice
from instil.functional.divergences import (
    decoupled_kl,
    rest_cross_entropy,
    softened_kl,
    target_cross_entropy,
)
from instil.functional.feature_maps import POOLS, as_map
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.pairs import feature_levels
from instil.items import Items, drop_unlabelled_gradient

RegionLoss = Literal["kd", "dkd", "nkd"]


@check_bounds
def sdd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    loss: RegionLoss = "kd",
    temperature: Positive = 4.0,
    alpha: float = 1.0,
    beta: NonNegative = 8.0,
    gamma: NonNegative = 1.5,
    complementary: NonNegative = 2.0,
    reduction: str = "mean",
) -> Tensor:
    """Scale-decoupled distillation loss (Wei et al. 2024).

    Mean over the regions of a logit loss; complementary regions are multiplied by
    ``complementary`` (see ``region_weights``).

    Args:
        student_logits: (N, R, C), logits of R regions; the first region is the whole map.
        teacher_logits: (N, R, C).
        target: class indices (N,); ``-100`` marks an unlabelled item, whose loss is 0.
        loss: ``"kd"``, ``"dkd"`` (with ``alpha`` and ``beta``) or ``"nkd"`` (with ``gamma``).
        temperature: softmax temperature, > 0.
        alpha: weight of the target class in DKD.
        beta: weight of the non-target classes in DKD.
        gamma: weight of the non-target classes in NKD.
        complementary: weight of complementary regions.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit, there is only one class, or the loss is unknown.

    Example:
        >>> import torch
        >>> sdd_loss(torch.zeros(1, 3, 3), torch.eye(3)[None], torch.tensor([0]))
        tensor(0.1944)
    """
    require_choice("loss", loss, ("kd", "dkd", "nkd"))
    require_same_logits(student_logits, teacher_logits, classes=2, dims=3)
    require_class_target(student_logits[:, 0], target)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    # Every region of an image has the label of the image.
    labels = target.unsqueeze(1).expand(student_logits.shape[:2])
    if loss == "kd":
        values = softened_kl(student_logits, teacher_logits, temperature) * temperature**2
    elif loss == "dkd":
        tckd, nckd = decoupled_kl(student_logits, teacher_logits, labels, temperature)
        values = (alpha * tckd + beta * nckd) * temperature**2
    else:
        rest = rest_cross_entropy(student_logits, teacher_logits, labels, temperature)
        target_loss = target_cross_entropy(student_logits, teacher_logits, labels)
        values = target_loss + gamma * temperature**2 * rest
    weights = region_weights(teacher_logits, target, complementary)
    return apply_reduction((values * weights).mean(1), reduction, target)


def region_weights(teacher_logits: Tensor, target: Tensor, complementary: float = 2.0) -> Tensor:
    """Weights of regions: ``complementary`` where region and whole map differ in correctness.

    Args:
        teacher_logits: (N, R, C); the first region is the whole map.
        target: class indices (N,).
        complementary: weight of regions that the teacher classifies correctly although it
            misclassifies the whole map, or the reverse. All other regions have weight 1.

    Returns:
        (N, R).
    """
    is_correct = teacher_logits.argmax(-1) == target.unsqueeze(1)
    weights = torch.where(is_correct == is_correct[:, :1], 1.0, complementary)
    return weights.to(to_float32(teacher_logits).dtype)


def region_logits(features: Tensor, head: tuple[Tensor, Tensor], scales: int = 3) -> Tensor:
    """Logits of the regions of a feature map, on grids of 1 x 1, 2 x 2, 4 x 4, ... regions.

    A map that is smaller than a grid contributes some regions more than once.

    Args:
        features: feature map (N, D, *grid), or tokens (N, T, D).
        head: weight (C, D) and bias (C,) of the classifier, applied to the mean of each region.
        scales: number of grids.

    Returns:
        (N, R, C), grid by grid and row by row.
    """
    grid = to_float32(as_map(features))
    pool = POOLS[grid.ndim - 2]
    pooled = [pool(grid, 2**scale).flatten(2) for scale in range(scales)]
    # The 1 x 1 grid comes first: region 0 is the whole map.
    regions = torch.cat(pooled, 2)
    weight, bias = (part.to(regions.dtype) for part in head)
    return F.linear(regions.mT, weight, bias)


class SDD(Objective):
    """Logit loss for each region at several scales, with more weight on complementary regions.

    Reads the last stage of ``features`` (map or tokens), and the ``head`` that is applied to its
    mean, on both sides.
    """

    card = Card(
        "Scale Decoupled Distillation",
        "https://arxiv.org/abs/2403.13512",
        "CVPR",
        2024,
        source="logits",
        labels=("single",),
        zero_at_match=False,
        published_weight=9.0,
        weight_setting="the authors' code, CIFAR-100, form kd, T = 4: 0.9, and 0.1 for the label "
        "loss",
        deviations="The weight of complementary regions is an option in the paper and 2 in the "
        "code. In the code's NKD, the other classes include the label, because its mask removes "
        "nothing; here they do not. At a match kd and dkd are zero; nkd leaves the teacher's "
        "entropy.",
        equation=r"\frac{1}{R} \sum_{r=1}^{R} w_r T^2 \mathrm{KL}(p^t_{T,r} \Vert p^s_{T,r}), "
        r"\quad w_r = 2 \text{ if the teacher is right on either region } r \text{ or the whole "
        r"map, not both}, \quad w_r = 1 \text{ else}",
        use="For images with several objects or with fine parts. The logits of each region "
        "transfer what the teacher detects at each location, without comparing features. It has "
        "no parameters. Labels determine the weights, and the head is applied to 21 regions at "
        "the default scales.",
        pitfalls="Both networks must end with a mean over the map and a linear head. The whole "
        "image is one of R regions and contributes 1 / R of the loss. Maps smaller than 4 x 4 "
        "positions repeat regions; use fewer scales for them. The authors increase the weight "
        "of the dkd form over the first epochs. Use temperature 1 with nkd.",
    )
    needs: ClassVar = {"student": (("features",), ("head",)), "teacher": (("features",), ("head",))}
    items = Items(per_sample=True, labelled=True)

    def __init__(
        self,
        loss: Annotated[
            RegionLoss,
            Doc("loss of each region: kd (T² KL), dkd or nkd (published with temperature 1)"),
        ] = "kd",
        scales: Annotated[
            int, Ge(1), Doc("number of grids of regions: 1 x 1, 2 x 2, 4 x 4, ...")
        ] = 3,
        temperature: Annotated[Positive, Doc("softmax temperature")] = 4.0,
        beta: Annotated[NonNegative, Doc("weight of the non-target classes in dkd")] = 8.0,
        gamma: Annotated[NonNegative, Doc("weight of the non-target classes in nkd")] = 1.5,
        complementary: Annotated[
            NonNegative,
            Doc(
                "weight of regions that the teacher classifies correctly although it "
                "misclassifies the whole map, or the reverse"
            ),
        ] = 2.0,
    ):
        super().__init__()
        self.loss = loss
        self.scales = scales
        self.temperature = temperature
        self.beta = beta
        self.gamma = gamma
        self.complementary = complementary

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Check that the head fits the last stage on both sides.

        Raises:
            ValueError: if the input width of a head differs from the channels of the last stage.
        """
        for side, outputs in (("student", student_outputs), ("teacher", teacher_outputs)):
            channels = as_map(feature_levels(outputs)[-1]).shape[1]
            width = outputs["head"][0].shape[1]
            if channels != width:
                raise ValueError(
                    f"{side}: the head does not fit the last stage of features. Expected {width} "
                    f"channels, got {channels}. End features with the input of the head."
                )

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        student_logits, teacher_logits = (
            region_logits(feature_levels(outputs)[-1], outputs["head"], self.scales)
            for outputs in (student_outputs, teacher_outputs)
        )
        return sdd_loss(
            student_logits,
            teacher_logits,
            batch["label"],
            self.loss,
            self.temperature,
            beta=self.beta,
            gamma=self.gamma,
            complementary=self.complementary,
            reduction="none",
        )
