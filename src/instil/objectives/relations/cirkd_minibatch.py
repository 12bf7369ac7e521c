"""Cross-image relations: similarities between all pixels of a batch's images."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Card, Positive, check_bounds
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import flatten_spatial, require_same_items, resize_to_common
from instil.functional.pairs import Pairs
from instil.functional.pooling import pool_cells
from instil.modules.adapters import common_grid
from instil.objectives.bases.feature_objective import FeatureObjective


@check_bounds
def cirkd_minibatch_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    temperature: Positive = 0.1,
    pool: Annotated[int, Ge(1)] = 1,
) -> Tensor:
    """KL divergence of each pixel's similarities with the pixels of each image (Yang et al. 2022).

    Softmax of cosines over ``temperature``, without a factor of its square. Mean over pixels and
    images. Memory grows with the square of the number of positions of the batch.

    Args:
        student_features: (N, C, *grid).
        teacher_features: (N, C', *grid).
        temperature: divisor of the cosines, > 0.
        pool: size of the patches of positions that are averaged first.

    Returns:
        Scalar.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> teacher_features = torch.eye(2).reshape(1, 2, 1, 2)
        >>> cirkd_minibatch_loss(torch.ones(1, 3, 1, 2), teacher_features, temperature=1.0)
        tensor(0.1109)
    """
    require_same_items(student_features, teacher_features, "cirkd_minibatch_loss")
    similarity = []
    for features in resize_to_common(student_features, teacher_features):
        pooled = pool_cells(features, pool) if pool > 1 else features
        pixels = l2_normalize(flatten_spatial(pooled))
        flat = pixels.flatten(0, 1)
        # The division is applied to the vectors, which are fewer than their products.
        products = pairwise_dot(flat / temperature, flat)
        similarity.append(products.view(-1, *pixels.shape[:2]))
    return softened_kl(similarity[0], similarity[1]).mean()


class CIRKDMinibatch(FeatureObjective):
    """CIRKD's mini-batch part: pixel-to-pixel similarities within and across images of a batch.

    Features are (N, C, *grid); the channels of student and teacher may differ.
    """

    deepest = True
    card = Card(
        "Cross-Image Relational Knowledge Distillation for Semantic Segmentation",
        "https://arxiv.org/abs/2204.06986",
        "CVPR",
        2022,
        source="relations",
        algorithms=("contrastive",),
        tasks=("segmentation", "classification"),
        couples=True,
        published_weight=1.0,
        weight_setting="the authors' code, Cityscapes, with kd of weight 1",
        deviations="The relations to stored pixels and regions are cirkd_memory. The code averages "
        "patches of 4 x 4 if a map is 256 x 256 or larger; here the option pool decides.",
        equation=r"\frac{1}{N^2 P} \sum_{i=1}^{N} \sum_{j=1}^{N} \sum_{a=1}^{P} \mathrm{KL}\left( "
        r"\mathrm{softmax}\left(\tfrac{F^t_j f^t_{ia}}{\tau}\right) \Vert "
        r"\mathrm{softmax}\left(\tfrac{F^s_j f^s_{ia}}{\tau}\right) \right), \quad \Vert f_{ia} "
        r"\Vert = 1",
        use="For dense prediction, when pixels of the same object class occur in several images "
        "of a batch; it adds relations to kd, which compares single pixels. No parameters, and "
        "the channels may differ.",
        pitfalls="Time and memory grow with the square of all positions in the batch, so a high "
        "resolution needs pool. Larger batches contain more relations. Without the factor of the "
        "squared temperature, gradients grow as the temperature falls.",
    )

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("divisor of the cosines")] = 0.1,
        pool: Annotated[
            int,
            Ge(1),
            Doc(
                "size of the patches of positions that are averaged first; memory falls with its "
                "fourth power; 4 in the code for maps of 256 x 256"
            ),
        ] = 1,
        pairs: Annotated[
            Pairs, Doc("[[student level, teacher level], ...]; auto: the deepest pair")
        ] = "auto",
    ):
        super().__init__(pairs)
        self.temperature = temperature
        self.pool = pool

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        return common_grid(student, teacher)

    def loss(
        self, student_features: Tensor, teacher_features: Tensor, connection: nn.Module
    ) -> Tensor:
        return cirkd_minibatch_loss(student_features, teacher_features, self.temperature, self.pool)
