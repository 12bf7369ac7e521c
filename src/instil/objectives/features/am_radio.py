"""AM-RADIO: one student distilled from several foundation models, with heads for each of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds
from instil.functional.errors import cosine_distance, sample_mean, smooth_l1_distance
from instil.functional.logits import apply_reduction
from instil.modules.normalizers import PHIStandardize, StandardizeChannels
from instil.objectives.bases.patch_objective import PatchObjective
from instil.objectives.bases.summaries import (
    SUMMARY_NEEDS,
    mean_over_teachers,
    summary_heads,
    summary_pairs,
    teacher_embeddings,
    teacher_losses,
)

Scale = Literal["phi_s", "channels", "none"]


def am_radio_summary_loss(
    student_embedding: Tensor, teacher_embedding: Tensor, reduction: str = "mean"
) -> Tensor:
    """Cosine distance of summary embeddings (Ranzinger et al. 2024, section 3.4).

    Args:
        student_embedding: (N, D).
        teacher_embedding: (N, D).
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> am_radio_summary_loss(torch.ones(1, 2), torch.tensor([[1.0, 0.0]]))
        tensor(0.2929)
    """
    return apply_reduction(cosine_distance(student_embedding, teacher_embedding), reduction)


@check_bounds
def am_radio_spatial_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    cosine: NonNegative = 0.9,
    smooth_l1: NonNegative = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Cosine and smooth L1 distance of patch tokens (Ranzinger et al. 2024, section 3.4).

    The value is the mean over the patches.

    Args:
        student_features: patch tokens (N, L, D).
        teacher_features: patch tokens (N, L, D).
        cosine: weight of the cosine distance.
        smooth_l1: weight of the smooth L1 distance.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> am_radio_spatial_loss(torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
        tensor(0.2886)
    """
    angles = cosine_distance(student_features, teacher_features)
    values = cosine * angles + smooth_l1 * smooth_l1_distance(student_features, teacher_features)
    return apply_reduction(sample_mean(values), reduction)


class AMRADIO(PatchObjective):
    """Embedding and deepest feature level, projected for each teacher and compared with it.

    The value is the mean over the teachers that a sample uses.
    """

    card = Card(
        "AM-RADIO: agglomerative vision foundation model, reduce all domains into one",
        "https://arxiv.org/abs/2312.06709",
        "CVPR",
        2024,
        source="features",
        algorithms=("multi-teacher", "adaptive"),
        zero_at_match=False,
        deviations="The heads are linear (a projection and a 1x1 convolution); the paper's are "
        "small MLPs. phi_s (default) comes from the authors' later paper (arXiv 2410.01680); none "
        "is the setting of the first paper. drop comes from UNIC; 0 is the paper. The authors "
        "have not published training code to compare with.",
        equation=r"\frac{1}{|\mathcal{K}|} \sum_{k \in \mathcal{K}} \Big[ w_s \big(1 - "
        r"\cos(r_k(e^s), \tilde e^{t_k})\big) + \frac{1}{L} \sum_p \big( w_c (1 - "
        r"\cos(r_k(f^s_p), \tilde f^{t_k}_p)) + \frac{w_1}{D_k} \sum_d "
        r"\mathrm{smooth}_{L1}(r_k(f^s_p) - \tilde f^{t_k}_p)_d \big) \Big]",
        use="One encoder that replaces several foundation models with different strengths, "
        "without labels. Each teacher may have its own width, family and input size. It costs "
        "their forward passes and two linear heads each.",
        pitfalls="No term measures the final task: evaluate the student with a head on its "
        "embedding. Without standardization the teacher with the largest features dominates. A "
        "training loop without fit uses the statistics of the first batch.",
    )

    needs: ClassVar = SUMMARY_NEEDS

    def __init__(
        self,
        cosine: Annotated[NonNegative, Doc("weight of the cosine distance of the patches")] = 0.9,
        smooth_l1: Annotated[
            NonNegative, Doc("weight of the smooth L1 distance of the patches")
        ] = 0.1,
        summary: Annotated[
            NonNegative, Doc("weight of the cosine distance of the embeddings")
        ] = 1.0,
        standardize: Annotated[
            Scale,
            Doc(
                "standardization of the teacher outputs: phi_s (rotation, variance 1 in every "
                "channel), channels (each channel separately) or none"
            ),
        ] = "phi_s",
        drop: Annotated[
            float,
            Ge(0),
            Le(1),
            Doc(
                "probability per sample of ignoring a teacher; the teacher with the largest loss "
                "is never ignored; needs an index"
            ),
        ] = 0.0,
        calibration_samples: Annotated[
            int,
            Ge(0),
            Doc(
                "number of unlabelled samples for the teacher statistics, read before training; "
                "0: the first batch"
            ),
        ] = 1000,
    ):
        super().__init__(calibration_samples)
        self.cosine = cosine
        self.smooth_l1 = smooth_l1
        self.summary = summary
        self.standardize = standardize
        self.drop = drop

    def make_normalizer(self, tokens: Tensor) -> nn.Module:
        if self.standardize == "phi_s":
            return PHIStandardize(tokens)
        return StandardizeChannels(tokens) if self.standardize == "channels" else nn.Identity()

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
        spatial = am_radio_spatial_loss(
            student_patches, teacher_patches, self.cosine, self.smooth_l1, "none"
        )
        summary = am_radio_summary_loss(student_embedding, teacher_embedding, "none")
        return self.summary * summary + spatial
