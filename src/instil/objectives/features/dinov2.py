"""DINOv2: the student assigns images and masked patches to prototypes of a frozen teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Outputs,
    Positive,
    check_bounds,
    item_weights,
)
from instil.functional.directions import l2_normalize, pairwise_dot
from instil.functional.divergences import expectation
from instil.functional.feature_maps import (
    as_map,
    describe_grid,
    grid_of,
    patch_tokens,
    require_same_shape,
)
from instil.functional.hidden_squares import hidden_share
from instil.functional.logits import apply_reduction
from instil.functional.pairs import describe_pair, feature_levels
from instil.functional.prototypes import spherical_kmeans
from instil.items import Items
from instil.modules.adapters import Adapter
from instil.modules.projectors import RegressionHead
from instil.objectives.bases.patch_objective import CalibrationSamples

PATCHES_PER_SAMPLE = 8
"""Patches of an image whose vectors are clustered: a few of many images are more diverse."""


@check_bounds
def dinov2_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centre: Tensor | float = 0.0,
    temperature: Positive = 0.1,
    teacher_temperature: Positive = 0.04,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of prototype assignments, with a centred target (Oquab et al. 2024, section 4).

    Args:
        student_logits: similarities (..., K) to K prototypes.
        teacher_logits: similarities (..., K) to the same prototypes.
        centre: (K,), or a number, that is subtracted from the teacher's logits.
        temperature: softmax temperature of the student, > 0.
        teacher_temperature: softmax temperature of the teacher, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> dinov2_loss(torch.zeros(1, 4), torch.eye(4)[:1])
        tensor(1.3863)
    """
    student, teacher = require_same_shape(student_logits, teacher_logits, "dinov2_loss")
    target = ((teacher.detach() - centre) / teacher_temperature).softmax(-1)
    values = -expectation(target, (student / temperature).log_softmax(-1))
    return apply_reduction(values, reduction)


class Prototypes(nn.Module):
    """Prototypes of a teacher's vectors, and the mean of the vectors' similarities to them.

    Args:
        vectors: vectors (N, D) of a dry batch.
        size: number of prototypes.
    """

    def __init__(self, vectors: Tensor, size: int):
        super().__init__()
        self.register_buffer("directions", torch.zeros(size, vectors.shape[1]).to(vectors))
        self.register_buffer("centre", torch.zeros(size).to(vectors))
        self.directions: Tensor
        self.centre: Tensor
        self.fit(vectors)

    def fit(self, vectors: Tensor) -> None:
        """Replace the prototypes by those of vectors (N, D)."""
        self.directions.copy_(spherical_kmeans(vectors, len(self.directions)))
        self.centre.copy_(self(vectors).mean(0))

    def forward(self, vectors: Tensor) -> Tensor:
        """Cosines (..., K) of vectors (..., D) with the prototypes."""
        return pairwise_dot(l2_normalize(vectors), self.directions)


class DINOv2(Objective):
    """Cross-entropy of student and teacher assignments to prototypes, of images and of patches.

    The prototypes are clusters of the teacher's embeddings (N, D), and of its patches in the
    deepest level. With the scheme masked_images the patch term counts hidden patches by their
    hidden share, else all patches.

    Attributes:
        plan: description of the pair of levels, after ``build``.
    """

    card = Card(
        "DINOv2: Learning Robust Visual Features without Supervision",
        "https://arxiv.org/abs/2304.07193",
        "TMLR",
        2024,
        source="features",
        tasks=("representation", "classification"),
        zero_at_match=False,
        deviations="The prototypes are k-means clusters of a frozen teacher's vectors, because "
        "published encoders come without their heads; those of the paper are trained with the "
        "teacher. The centre is the mean over the calibration samples instead of Sinkhorn-Knopp. "
        "There are no small crops and no KoLeo regulariser.",
        equation=r"H\Big(\sigma\big(\tfrac{W \hat f^t - c}{\tau_t}\big), \sigma\big(\tfrac{W \hat "
        r"z}{\tau_s}\big)\Big) + \frac{\lambda}{\sum_p m_p} \sum_p m_p H\Big(\sigma\big(\tfrac{V "
        r"\hat f^t_p - d}{\tau_t}\big), \sigma\big(\tfrac{V \hat z_p}{\tau_s}\big)\Big)",
        use="To distil a vision transformer such as DINOv2 into a smaller encoder without labels, "
        "for classification and for dense tasks. The patch term trains the student's local "
        "features.",
        pitfalls="The loss at a match is the entropy of the target. With a low teacher temperature "
        "the target is one cluster: compare its number with that of the classes. A CNN whose last "
        "level has few positions has few patches; tap an earlier one.",
    )
    needs: ClassVar = {
        "student": (("embedding",), ("features",), ("patch_mask", "features")),
        "teacher": (("embedding",), ("features",)),
    }
    items = Items(per_sample=True)

    def __init__(
        self,
        prototypes: Annotated[int, Ge(1), Doc("number of prototypes, of images and patches")] = 256,
        temperature: Annotated[Positive, Doc("softmax temperature of the student")] = 0.1,
        teacher_temperature: Annotated[
            Positive, Doc("softmax temperature of the teacher, lower than the student's")
        ] = 0.04,
        patch_weight: Annotated[NonNegative, Doc("weight of the patch term")] = 1.0,
        layers: Annotated[
            int, Ge(1), Doc("linear layers of the perceptron on the student's embedding")
        ] = 2,
        calibration_samples: CalibrationSamples = 1000,
    ):
        super().__init__()
        self.prototypes = prototypes
        self.temperature = temperature
        self.teacher_temperature = teacher_temperature
        self.patch_weight = patch_weight
        self.layers = layers
        self.calibration_samples = calibration_samples
        self.plan: list[str] = []

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build perceptron, adapter and the first prototypes, from a dry batch."""
        levels = feature_levels(student)
        teacher_levels = feature_levels(teacher)
        pair = len(levels) - 1, len(teacher_levels) - 1
        embedding = teacher["embedding"].flatten(1)
        self.head = RegressionHead(student["embedding"].flatten(1), embedding, self.layers)
        self.adapter = Adapter(levels[-1], teacher_levels[-1])
        self.image_prototypes = Prototypes(embedding, self.prototypes)
        self.patch_prototypes = Prototypes(_spaced_patches(teacher).flatten(0, 1), self.prototypes)
        grid = describe_grid(grid_of(as_map(teacher_levels[-1])))
        self.plan = [describe_pair(pair, levels[-1], teacher_levels[-1], f"patches on {grid}")]

    def collect_statistics(self, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Vectors of the counted samples, which ``load_statistics`` clusters."""
        weight = item_weights(batch)
        counted = weight.flatten(1).amax(1) > 0 if weight.ndim > 1 else weight > 0
        rows = {"embedding": teacher["embedding"].flatten(1), "patches": _spaced_patches(teacher)}
        return {key: value[counted] for key, value in rows.items()}

    def load_statistics(self, rows: dict[str, Tensor]) -> None:
        """Cluster the vectors of the calibration samples."""
        self.image_prototypes.fit(rows["embedding"])
        self.patch_prototypes.fit(rows["patches"].flatten(0, 1))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        vectors = self.head(student["embedding"].flatten(1), teacher["embedding"].flatten(1))
        image_values = self._assignment_loss(self.image_prototypes, *vectors)
        if not self.patch_weight:
            return image_values
        level = feature_levels(teacher)[-1]
        predicted = patch_tokens(self.adapter(feature_levels(student)[-1]))
        values = self._assignment_loss(self.patch_prototypes, predicted, patch_tokens(level))
        weight = torch.ones_like(values)
        if self.reads["student"][2] == "patch_mask":
            weight = hidden_share(student["patch_mask"], as_map(level)).flatten(1)
        # The bound only acts on an image without hidden patches, which has no patch term.
        total = weight.sum(1).clamp_min(torch.finfo(values.dtype).tiny)
        return image_values + self.patch_weight * (values * weight).sum(1) / total

    def _assignment_loss(self, prototypes: Prototypes, student: Tensor, teacher: Tensor) -> Tensor:
        return dinov2_loss(
            prototypes(student),
            prototypes(teacher),
            prototypes.centre,
            self.temperature,
            self.teacher_temperature,
            "none",
        )


def _spaced_patches(teacher: Outputs) -> Tensor:
    """Evenly spaced patches (N, P, D) of the deepest level."""
    patches = patch_tokens(feature_levels(teacher)[-1])
    step = max(1, patches.shape[1] // PATCHES_PER_SAMPLE)
    return patches[:, ::step][:, :PATCHES_PER_SAMPLE]
