"""Cross-image relations: how alike any two pixels of the batch's images are, told by the teacher."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from instil.core import Card, Positive
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import flatten_spatial, resize_to_common
from instil.functional.pairs import Pairs
from instil.objectives.bases.dense_objective import DenseObjective


def cirkd_minibatch_loss(
    student: Tensor, teacher: Tensor, temperature: float = 0.1, pool: int = 1
) -> Tensor:
    """KL of each pixel's similarities with the pixels of each image, mean over pixels and images (Yang et al. 2022); a scalar.

    Maps (N, C, H, W) of one grid and any channels; cosines over ``temperature``, without its square. ``pool``: side of the patches of positions
    that are averaged first. Memory grows with (N * H * W) ** 2.
    """
    similarity = []
    for side in resize_to_common(student, teacher):
        pixels = l2_normalize(
            flatten_spatial(avg_pool2d(side, pool, ceil_mode=True) if pool > 1 else side)
        )
        every = pixels.flatten(0, 1)
        similarity.append(
            pairwise_dot(every / temperature, every).view(-1, *pixels.shape[:2])
        )  # few numbers are divided, not their products
    return softened_kl(similarity[0], similarity[1]).mean()


class CIRKDMinibatch(DenseObjective):
    """CIRKD's mini-batch part: similarity distributions from pixel to pixel, within and across the images of a batch.

    ``temperature``: divides the cosines.
    ``pool``: side of the patches of positions that are averaged first; memory falls with its fourth power, the code takes 4 for maps of 256 x 256.
    """

    card = Card(
        "Cross-Image Relational Knowledge Distillation for Semantic Segmentation",
        "https://arxiv.org/abs/2204.06986",
        "CVPR",
        2022,
        source="relations",
        algorithms=("contrastive",),
        tasks=("segmentation", "classification"),
        couples=True,
        deviations="the relations to remembered pixels and regions are cirkd_memory; published weights: 1 for this, 0.1 for that; the code averages "
        "patches of 4 x 4 where a map is 256 x 256 or larger, here pool says so",
        equation=r"\frac{1}{N^2 P} \sum_{i=1}^{N} \sum_{j=1}^{N} \sum_{a=1}^{P} \mathrm{KL}\left( \mathrm{softmax}\left(\tfrac{F^t_j "
        r"f^t_{ia}}{\tau}\right) \Vert \mathrm{softmax}\left(\tfrac{F^s_j f^s_{ia}}{\tau}\right) \right), \quad \Vert f_{ia} \Vert = 1",
        use="For dense prediction, where pixels of the same thing lie in several images of a batch; it adds relations to kd's classes of "
        "single pixels. No parameters, and the channels may differ.",
        pitfalls="Time and memory grow with the square of all positions in the batch, so that a high resolution needs pool; it says more in larger "
        "batches. Without the factor of the squared temperature its gradients grow as the temperature falls.",
    )

    def __init__(
        self, temperature: Positive = 0.1, pool: Annotated[int, Ge(1)] = 1, pairs: Pairs = "auto"
    ):
        super().__init__(pairs)
        self.temperature, self.pool = temperature, pool

    def loss(self, student: Tensor, teacher: Tensor, connection: nn.Module) -> Tensor:
        return cirkd_minibatch_loss(student, teacher, self.temperature, self.pool)
