"""Patient KD: the student's [CLS] states match the teacher's in intermediate layers."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Outputs
from instil.functional.errors import squared_error
from instil.functional.feature_maps import require_same_shape
from instil.functional.hidden_states import layer_map, layer_tensors
from instil.functional.logits import apply_reduction
from instil.objectives.bases.hidden_objective import HiddenObjective


def patient_kd_loss(
    student_states: Tensor,
    teacher_states: Tensor,
    normalize: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """Patient knowledge distillation loss (Sun et al. 2019, section 3.2).

    Mean squared difference of [CLS] states over layers and width, as in the authors' code; the
    paper sums over both.

    Args:
        student_states: states (N, M, D) of M layers.
        teacher_states: states (N, M, D) of M layers.
        normalize: divide each state by its length first.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> patient_kd_loss(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor(0.4000)
    """
    student_states, teacher_states = require_same_shape(
        student_states, teacher_states, "patient_kd_loss"
    )
    if normalize:
        student_states = F.normalize(student_states, dim=-1)
        teacher_states = F.normalize(teacher_states, dim=-1)
    return apply_reduction(squared_error(student_states, teacher_states), reduction)


def _first_tokens(outputs: Outputs) -> Outputs:
    """Hidden states (N, 1, D) of the first token of each layer."""
    states = layer_tensors(outputs, "hidden_states")
    return {"hidden_states": tuple(state[:, :1] for state in states)}


class PatientKD(HiddenObjective):
    """[CLS] states (first token) of all student layers except the last near the teacher's.

    The last layer learns from ``kd``.
    """

    card = Card(
        "Patient knowledge distillation for BERT model compression",
        "https://arxiv.org/abs/1908.09355",
        "EMNLP",
        2019,
        source="features",
        tasks=("text_classification", "classification"),
        deviations="The loss is the mean over layers and width, as in the code. The paper sums: "
        "multiply its weight by layers times width. A linear projection is used where the widths "
        "differ, which the paper excludes.",
        equation=r"\frac{1}{M D} \sum_{m=1}^{M} \left\lVert \frac{h^s_m}{\lVert h^s_m \rVert_2} - "
        r"\frac{h^t_{g(m)}}{\lVert h^t_{g(m)} \rVert_2} \right\rVert_2^2",
        use="For classification of sequences with BERT-like networks, in addition to kd and "
        "labels. The student has the teacher's width and fewer layers; the paper initializes it "
        "from the teacher's first layers. It compares one token per sample, so it is cheap.",
        pitfalls="The first token must be a summary ([CLS]); it is not in decoders or mean-pooled "
        "networks. Entries of unit vectors are small: the paper searches the weight among 10, "
        "100, 500 and 1000 for each task.",
    )

    def __init__(
        self,
        layers: Annotated[
            Literal["skip", "last"] | list[list[int]],
            Doc(
                "pairs [[student layer, teacher layer], ...], the first layer is 1. skip: student "
                "layers spread over the teacher's (2, 4, ... 10 of 12). last: the teacher's last "
                "layers except the final one (7 ... 11)"
            ),
        ] = "skip",
        normalize: Annotated[bool, Doc("whether states are divided by their length first")] = True,
    ):
        super().__init__()
        self.layers = layers  # type: ignore[assignment]
        self.normalize = normalize

    def choose(self, num_student_layers: int, num_teacher_layers: int) -> list[tuple[int, int]]:
        """Pairs (student layer, teacher layer).

        Raises:
            ValueError: if the rule is unknown or leaves no layer.
        """
        rule: str | list[list[int]] = self.layers
        if isinstance(rule, list):
            return layer_map(rule, num_student_layers, num_teacher_layers, first=0)
        if rule not in ("skip", "last"):
            raise ValueError(
                "layers: unknown value. Expected skip, last or a list of [student layer, teacher "
                f"layer], got {rule!r}."
            )
        offset = num_teacher_layers - num_student_layers
        if num_student_layers < 2 or (rule == "last" and offset < 0):
            least = "two student layers"
            if rule == "last":
                least += " and no more than the teacher has"
            raise ValueError(
                f"layers: '{rule}' leaves no pairs without the last layer. Expected at least "
                f"{least}, got {num_student_layers} student layers and {num_teacher_layers} "
                "teacher layers. List the pairs."
            )
        if rule == "last":
            return [(layer, offset + layer) for layer in range(1, num_student_layers)]
        return layer_map("uniform", num_student_layers, num_teacher_layers)[:-1]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        # Only the first token is projected: the others may be padding that is not finite.
        pairs = list(self.matched_pairs(_first_tokens(student), _first_tokens(teacher)))
        student_states = torch.stack([state[:, 0] for state, _ in pairs], 1)
        teacher_states = torch.stack([state[:, 0] for _, state in pairs], 1)
        return patient_kd_loss(student_states, teacher_states, self.normalize, "none")
