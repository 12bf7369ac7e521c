"""Self-distillation without labels: match the views of a sample with a centred EMA teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.divergences import expectation
from instil.functional.logits import apply_reduction
from instil.items import Items


@check_bounds
def dino_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    centre: Tensor | float = 0.0,
    temperature: Positive = 0.1,
    sharpness: Positive = 0.04,
    reduction: str = "mean",
) -> Tensor:
    """DINO cross-entropy over all pairs of different views (Caron et al. 2021, Eq. 3, Algorithm 1).

    Args:
        student_logits: (N, V, K), K prototypes of V views.
        teacher_logits: (N, G, K), of the first G views.
        centre: centre (K,), or a number, that is subtracted from the teacher's logits.
        temperature: softmax temperature of the student, > 0.
        sharpness: softmax temperature of the teacher, > 0.
        reduction: ``"mean"`` or ``"none"`` (one value per sample).

    Returns:
        Scalar, or (N,) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit or there is only one view.

    Example:
        >>> import torch
        >>> dino_loss(torch.eye(3, 2)[None], torch.eye(2)[None])
        tensor(5.3466)
    """
    num_global, num_views = _num_views(teacher_logits, student_logits)
    # Centring alone favours uniform outputs and sharpening alone a single class; together they
    # prevent collapse.
    target = ((to_float32(teacher_logits.detach()) - centre) / sharpness).softmax(-1)
    log_student = (to_float32(student_logits) / temperature).log_softmax(-1)
    entropies = -expectation(target.unsqueeze(2), log_student.unsqueeze(1))  # (N, G, V)
    device = student_logits.device
    # The global views come first on both sides, so the diagonal pairs each of them with itself.
    different = ~torch.eye(num_global, num_views, dtype=torch.bool, device=device)
    values = torch.where(different, entropies, 0.0).sum((1, 2)) / different.sum()
    return apply_reduction(values, reduction)


def _num_views(teacher_logits: Tensor, student_logits: Tensor) -> tuple[int, int]:
    """Numbers of global and of all views; ValueError if the shapes do not fit."""
    have_views = student_logits.ndim == teacher_logits.ndim == 3
    if have_views and student_logits.shape[::2] == teacher_logits.shape[::2]:
        num_global, num_views = teacher_logits.shape[1], student_logits.shape[1]
        if 1 <= num_global <= num_views and num_views >= 2:
            return num_global, num_views
    shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
    raise ValueError(
        "student_logits, teacher_logits: the views do not fit. Expected (N, V, K) with two or "
        f"more views, and (N, G, K) for the first G views, got {shapes}."
    )


class DINO(Objective):
    """Cross-entropy of the student's views with the teacher's global views, centred and sharpened.

    ``view_logits`` are (N, V, K). The scheme dino provides views, heads and teacher.
    """

    card = Card(
        "Emerging Properties in Self-Supervised Vision Transformers",
        "https://arxiv.org/abs/2104.14294",
        "ICCV",
        2021,
        source="logits",
        algorithms=("contrastive",),
        tasks=("view_classification", "classification"),
        zero_at_match=False,
        equation=r"-\frac{1}{\vert P \vert} \sum_{(g, v) \in P} \mathrm{softmax}\left((z^t_g - c) "
        r"/ \tau_t\right)^\top \log \mathrm{softmax}(z^s_v / \tau_s), \quad P = \lbrace g \ne v "
        r"\rbrace, \quad c \leftarrow m c + (1 - m) \bar z^t",
        use="Pretraining without labels and without a pretrained teacher. Evaluate the embedding "
        "afterwards with a linear head or nearest neighbours.",
        pitfalls="Without the centre one prototype dominates; without a sharpness below the "
        "temperature all outputs become uniform. Check that the loss falls below log K but not to "
        "zero. The paper warms sharpness up from 0.04 to 0.07: use a schedule.",
    )
    needs: ClassVar = {"student": (("view_logits",),), "teacher": (("view_logits",),)}
    items = Items(per_sample=True)

    def __init__(
        self,
        temperature: Annotated[Positive, Doc("softmax temperature of the student")] = 0.1,
        sharpness: Annotated[
            Positive, Doc("softmax temperature of the teacher, lower than the student's")
        ] = 0.04,
        momentum: Annotated[
            float,
            Ge(0),
            Lt(1),
            Doc("share of the old centre, a moving mean of the teacher's logits, in each update"),
        ] = 0.9,
    ):
        super().__init__()
        self.temperature = temperature
        self.sharpness = sharpness
        self.momentum = momentum
        self.centre: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create the centre, which starts at zero."""
        logits = to_float32(teacher["view_logits"])
        self.register_buffer("centre", logits.new_zeros(logits.shape[-1]))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return dino_loss(
            student["view_logits"],
            teacher["view_logits"],
            self.centre,
            self.temperature,
            self.sharpness,
            "none",
        )

    def state_updates(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        # Averaged over the views first: fewer numbers are gathered from the other processes.
        return {"logits": to_float32(teacher["view_logits"]).mean(1), "counted": self.weight(batch)}

    def after_step(self, rows: dict[str, Tensor]) -> None:
        """Move the centre towards the mean of the teacher's logits."""
        if not rows or not len(rows["logits"]):
            return
        counted = rows["counted"].unsqueeze(1).to(rows["logits"].dtype)
        total = counted.sum()
        # Uncounted rows may hold NaN, which a product with weight 0 would keep.
        row_sum = torch.where(counted > 0, rows["logits"], 0.0).sum(0)
        mean_logits = row_sum / total.clamp_min(1)
        centre = self.momentum * self.centre + (1 - self.momentum) * mean_logits
        self.centre.copy_(torch.where(total > 0, centre, self.centre))
