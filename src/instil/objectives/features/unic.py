"""UNIC: class and patch tokens match several teachers, of whom the easiest are dropped randomly."""

from __future__ import annotations

from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds
from instil.functional.errors import cosine_distance, sample_mean, smooth_l1_distance
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import StandardizeChannels
from instil.objectives.bases.patch_objective import PatchObjective
from instil.objectives.bases.summaries import (
    SUMMARY_NEEDS,
    mean_over_teachers,
    summary_heads,
    summary_pairs,
    teacher_embeddings,
    teacher_losses,
)


@check_bounds
def unic_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    cosine: NonNegative = 0.5,
    smooth_l1: NonNegative = 0.5,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """UNIC loss: cosine distance and smooth L1 difference of tokens (Sariyildiz et al. 2024).

    The value is the mean over the tokens of a sample.

    Args:
        student_features: tokens (N, L, D), or one token (N, D).
        teacher_features: tokens (N, L, D), or one token (N, D).
        cosine: weight of the cosine distance.
        smooth_l1: weight of the smooth L1 difference.
        beta: difference at which the smooth L1 becomes linear, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> unic_loss(torch.ones(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.2714)
    """
    distance = cosine * cosine_distance(student_features, teacher_features)
    difference = smooth_l1_distance(student_features, teacher_features, beta)
    values = distance + smooth_l1 * difference
    return apply_reduction(sample_mean(values) if values.ndim > 1 else values, reduction)


class UNIC(PatchObjective):
    """Match of the embedding and the deepest level, projected for each teacher, with the teacher's.

    The loss of a teacher is the mean of both, that of a sample the mean over its remaining
    teachers.
    """

    card = Card(
        "UNIC: universal classification models via multi-teacher distillation",
        "https://arxiv.org/abs/2408.05088",
        "ECCV",
        2024,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        zero_at_match=False,
        deviations="The loss of a sample is the mean over its remaining teachers; in the code all "
        "remaining (sample, teacher) pairs of a batch have the same weight. The projectors are "
        "linear; those of the code are a ladder from several layers. The statistics come from "
        "calibration samples before training; the code uses moving ones.",
        equation=r"\frac{1}{|\mathcal{K}|} \sum_{k \in \mathcal{K}} \frac{1}{2} \left[ "
        r"\ell(r_k(e^s), \tilde e^{t_k}) + \frac{1}{L} \sum_p \ell(r_k(f^s_p), \tilde f^{t_k}_p) "
        r"\right], \quad \ell(a, b) = w_c (1 - \cos(a, b)) + \frac{w_1}{D} \sum_d "
        r"\mathrm{smooth}_{L1}(a_d - b_d)",
        use="For one encoder that learns from several strong ones, without labels, when some are "
        "learned faster than others. Randomly dropping the teachers with the smaller losses "
        "balances them. It costs two linear projections per teacher.",
        pitfalls="The largest loss decides which teacher always stays, so the teachers need common "
        "units: keep standardize on. Custom loops that do not use fit have the statistics of the "
        "first batch. Dropping needs an index. A drop of 1 leaves one teacher per sample; with a "
        "single teacher it has no effect.",
    )

    needs: ClassVar = SUMMARY_NEEDS

    def __init__(
        self,
        cosine: Annotated[NonNegative, Doc("weight of the cosine distance")] = 0.5,
        smooth_l1: Annotated[NonNegative, Doc("weight of the smooth L1 difference")] = 0.5,
        drop: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc(
                "probability, per sample, of leaving out a teacher whose loss is not the largest; "
                "needs an index"
            ),
        ] = 0.5,
        standardize: Annotated[
            bool,
            Doc("whether a teacher's channels get mean 0 and standard deviation 1 first"),
        ] = True,
        calibration_samples: Annotated[
            int,
            Ge(0),
            Doc(
                "number of samples for the teacher statistics, computed before training; 0: the "
                "first batch"
            ),
        ] = 1000,
    ):
        super().__init__(calibration_samples)
        self.cosine = cosine
        self.smooth_l1 = smooth_l1
        self.drop = drop
        self.standardize = standardize

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        return StandardizeChannels(tokens) if self.standardize else nn.Identity()

    def build(self, student: Outputs, teacher: Outputs) -> None:
        super().build(student, teacher)
        self.heads, self.class_targets = summary_heads(student, teacher, self.make_normalizer)

    def normalizers(self) -> list[nn.Module]:
        return [*self.targets, *self.class_targets]

    def teacher_features(self, teacher: Outputs) -> list[Tensor]:
        return [*super().teacher_features(teacher), *teacher_embeddings(teacher)]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        patches = self.matched_pairs(student, teacher)
        embeddings = summary_pairs(self.heads, self.class_targets, student, teacher)
        losses = teacher_losses(self._teacher_loss, patches, embeddings)
        return mean_over_teachers(losses, batch, self.stream, self.drop)

    def _teacher_loss(
        self,
        student_embedding: Tensor,
        teacher_embedding: Tensor,
        student_patches: Tensor,
        teacher_patches: Tensor,
    ) -> Tensor:
        """Loss (N,) of one teacher."""
        weights = self.cosine, self.smooth_l1
        class_loss = unic_loss(student_embedding, teacher_embedding, *weights, reduction="none")
        patch_loss = unic_loss(student_patches, teacher_patches, *weights, reduction="none")
        return (class_loss + patch_loss) / 2
