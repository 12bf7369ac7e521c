"""DistilHuBERT: prediction of several teacher layers from the student's last layer."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Outputs, check_bounds, to_float32
from instil.functional.ctc import common_frames
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import Layers, masked_mean, replace_padding
from instil.functional.logits import apply_reduction
from instil.modules.adapters import LinearAdapter
from instil.objectives.bases.hidden_objective import HiddenObjective


@check_bounds
def distilhubert_loss(
    student_features: Tensor,
    teacher_features: Tensor,
    mask: Tensor | None = None,
    cosine: NonNegative = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Mean absolute difference minus the log-sigmoid of the cosine (Chang et al. 2022, Eq. 1).

    Args:
        student_features: predicted states (N, T, D).
        teacher_features: states (N, T, D).
        mask: (N, T), 1 for valid frames and 0 for padding; None: no padding.
        cosine: weight of the cosine term.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (the mean over the frames of each recording).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> distilhubert_loss(torch.ones(1, 2, 2), torch.eye(2)[None])
        tensor(0.9008)
    """
    student_features, teacher_features = require_same_shape(
        student_features, teacher_features, "distilhubert_loss", 3
    )
    student_features = replace_padding(student_features, mask)
    teacher_features = replace_padding(teacher_features, mask)
    distance = (student_features - teacher_features).abs().mean(-1)
    similarity = F.cosine_similarity(student_features, teacher_features, dim=-1)
    values = distance - cosine * F.logsigmoid(similarity)
    return apply_reduction(masked_mean(values, mask), reduction)


class DistilHuBERT(HiddenObjective):
    """One linear head per teacher layer on the student's last hidden states."""

    card = Card(
        "DistilHuBERT: Speech Representation Learning by Layer-wise Distillation of Hidden-unit "
        "BERT",
        "https://arxiv.org/abs/2110.01900",
        "ICASSP",
        2022,
        source="features",
        tasks=("speech_recognition",),
        labels=("sequence",),
        zero_at_match=False,
        deviations="Padded frames have no loss; the code of the authors includes them. The loss is "
        "the sum over the heads of the mean over the frames.",
        equation=r"\sum_{l} \frac{1}{T} \sum_{t=1}^{T} \left( \frac{1}{D} \lVert h^t_{l,t} - "
        r"\hat{h}_{l,t} \rVert_1 - \lambda \log \sigma\left( \cos(h^t_{l,t}, \hat{h}_{l,t}) "
        r"\right) \right)",
        use="For a shallow student of a self-supervised speech model (HuBERT, wav2vec 2.0), whose "
        "first layers initialise it. It needs no labels. The paper predicts layers 4, 8 and 12 of "
        "12 from a student of 2 layers: layers: [[2, 4], [2, 8], [2, 12]].",
        pitfalls="Both sides need the same frames, so the student keeps the convolutions of the "
        "teacher. The heads are not exported: fine-tune the student on the task afterwards.",
    )
    needs: ClassVar = dict.fromkeys(("student", "teacher"), (("hidden_states",), ("frame_length",)))

    def __init__(
        self,
        layers: Annotated[
            Layers,
            Doc(
                "pairs [[student layer, teacher layer], ...]; last: the last layers; uniform: the "
                "student's last layer predicts teacher layers at 1/3, 2/3 and the end"
            ),
        ] = "uniform",
        cosine: Annotated[NonNegative, Doc("weight of the cosine term")] = 1.0,
    ):
        super().__init__(layers)
        self.cosine = cosine

    def choose(self, student: int, teacher: int) -> list[tuple[int, int]]:
        """Pairs of layers; for ``uniform`` three teacher layers for the student's last one."""
        if self.layers != "uniform":
            return super().choose(student, teacher)
        thirds = [max(1, (third * teacher + 1) // 3) for third in (1, 2, 3)]
        return [(student, layer) for layer in dict.fromkeys(thirds)]

    def connect(self, student: Tensor, teacher: Tensor) -> nn.Module:
        """Build the head of one teacher layer, also for equal widths."""
        widths = student.shape[-1], teacher.shape[-1]
        return LinearAdapter(*widths, device=student.device, dtype=to_float32(student).dtype)

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        mask = common_frames(student_outputs, teacher_outputs, "hidden_states").float()
        terms = [
            distilhubert_loss(student_states, teacher_states, mask, self.cosine, "none")
            for student_states, teacher_states in self.matched_pairs(
                student_outputs, teacher_outputs, mask
            )
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total
