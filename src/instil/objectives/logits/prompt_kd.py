"""PromptKD: class distributions of images over text embeddings that student and teacher share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor
from typing_extensions import Doc

from instil.cards.options import Positive
from instil.core import Batch, Card, Outputs, check_bounds
from instil.functional.directions import l2_normalize
from instil.functional.divergences import softened_kl
from instil.functional.feature_maps import require_same_items
from instil.functional.logits import apply_reduction
from instil.functional.similarities import scaled_similarities
from instil.objectives.bases.image_text_objective import ImageTextObjective


@check_bounds
def prompt_kd_loss(
    student_image: Tensor,
    teacher_image: Tensor,
    class_embedding: Tensor,
    student_scale: Tensor | float,
    teacher_scale: Tensor | float,
    temperature: Positive = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """KL divergence of class distributions over one set of class embeddings (Li et al. 2024).

    The logits of a side are its scale times the cosine similarities of its images with the
    teacher's class embeddings. The loss is scaled by ``temperature ** 2``.

    Args:
        student_image: (N, D) of unit length.
        teacher_image: (N, D) of unit length.
        class_embedding: text embeddings of the classes (C, D) of unit length, by the teacher.
        student_scale: factor of the student's similarities.
        teacher_scale: factor of the teacher's similarities.
        temperature: softmax temperature, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per image).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the numbers of samples differ.

    Example:
        >>> import torch
        >>> unit = torch.eye(2)
        >>> prompt_kd_loss(unit.flip(0), unit, unit, 1.0, 1.0)
        tensor(0.4621)
    """
    require_same_items(student_image, teacher_image, "prompt_kd_loss")
    student_logits = scaled_similarities(student_image, class_embedding, student_scale)
    teacher_logits = scaled_similarities(teacher_image, class_embedding, teacher_scale)
    loss = softened_kl(student_logits, teacher_logits, temperature) * temperature**2
    return apply_reduction(loss, reduction)


class PromptKD(ImageTextObjective):
    """Agreement of class distributions over the teacher's embeddings of class prompts.

    The prompts are those of ``task.templates``. Their embeddings are computed once, and student
    and teacher share them: only the student's image network learns. No text and no label is read.
    """

    card = Card(
        "PromptKD: Unsupervised Prompt Distillation for Vision-Language Models",
        "https://arxiv.org/abs/2403.02781",
        "CVPR",
        2024,
        source="logits",
        algorithms=("cross-modal",),
        tasks=("image_text",),
        deviations="The teacher is not tuned by learned prompts first, and the student learns all "
        "trainable weights instead of visual prompts. The projection is one linear layer, and only "
        "where the widths differ; the paper has two layers. The mean is over images; the authors' "
        "code also divides by the number of classes and multiplies by 1000.",
        equation=r"\tau^2\, \mathrm{KL}\left( \sigma(\gamma^t W v^t / \tau) \,\Vert\, "
        r"\sigma(\gamma^s W v^s / \tau) \right), \quad W \text{ class embeddings of the teacher}",
        use="For unlabelled images of a domain whose classes have names, and a student that "
        "classifies them with the teacher's text embeddings. Give the student the teacher's text "
        "network, for example by model: teacher with the change towers, and freeze it.",
        pitfalls="A student with a text network of its own does not know the teacher's class "
        "embeddings, and its zero-shot accuracy is then undefined. A student of another width has "
        "a projection, which is not exported. Knowledge about anything but these classes is lost.",
    )
    needs: ClassVar = {
        "student": (("image_embedding",), ("logit_scale",)),
        "teacher": (("image_embedding",), ("logit_scale",), ("class_embedding",)),
    }

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of both sides")] = 1.0,
    ):
        super().__init__()
        self.temperature = temperature

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Build a linear layer if the widths of the image embeddings differ."""
        self.build_projection("image_embedding", student, teacher)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        student_image = self.project("image_embedding", student["image_embedding"])
        return prompt_kd_loss(
            l2_normalize(student_image),
            l2_normalize(teacher["image_embedding"]),
            l2_normalize(teacher["class_embedding"]),
            student["logit_scale"],
            teacher["logit_scale"],
            self.temperature,
            "none",
        )
