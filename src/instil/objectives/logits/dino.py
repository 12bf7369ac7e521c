"""Self-distillation with no labels: of one view the student says what a slow copy of it says of another."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from instil.core import Batch, Card, Objective, Outputs, Positive, full
from instil.functional.divergences import expectation
from instil.functional.logits import reduced


def dino_loss(
    student: Tensor,
    teacher: Tensor,
    centre: Tensor | float = 0.0,
    temperature: float = 0.1,
    sharpness: float = 0.04,
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy of the student's views with the teacher's, all pairs of unlike views (Caron et al. 2021, Eq. 3 and Algorithm 1).

    ``student`` (N, V, K) of V views, ``teacher`` (N, G, K) of the first G of them; the teacher's logits less the ``centre`` (K,) are divided by
    ``sharpness``, the student's by ``temperature``. (N,) for reduction ``none``. Raises ValueError for one view, or more of the teacher's.
    """
    (number, views, width), seen = student.shape, teacher.shape[1]
    if teacher.shape != (number, seen, width) or not 1 <= seen <= views or views < 2:
        shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        raise ValueError(
            f"{shapes}; expected (N, V, K) with two or more views, and (N, G, K) of the first G of them"
        )
    target = ((full(teacher.detach()) - centre) / sharpness).softmax(-1)
    said = (full(student) / temperature).log_softmax(-1)
    entropies = -expectation(target.unsqueeze(2), said.unsqueeze(1))  # (N, G, V)
    apart = ~torch.eye(seen, views, dtype=torch.bool, device=student.device)
    return reduced(torch.where(apart, entropies, 0.0).sum((1, 2)) / apart.sum(), reduction)


class DINO(Objective):
    """The student's ``view_logits`` (N, V, K) of all views against the teacher's of the global ones, which are centred and sharpened.

    ``temperature``: of the student.
    ``sharpness``: the temperature of the teacher, lower than the student's.
    ``momentum``: how much of itself the centre, the mean of what the teacher says, keeps at each step.

    The views, the heads and the teacher are those of the scheme dino.
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
        equation=r"-\frac{1}{\vert P \vert} \sum_{(g, v) \in P} \mathrm{softmax}\left((z^t_g - c) / \tau_t\right)^\top \log \mathrm{softmax}(z^s_v / "
        r"\tau_s), \quad P = \lbrace g \ne v \rbrace, \quad c \leftarrow m c + (1 - m) \bar z^t",
        use="Pretraining without any label, or a teacher; what is learned is read off the embedding afterwards, by a linear head or neighbours.",
        pitfalls="Without the centre one prototype takes all, without sharpness below the temperature all become alike; watch that the loss "
        "leaves log K without falling to zero. The paper warms sharpness up from 0.04 to 0.07: a schedule.",
    )
    needs: ClassVar = {"student": (("view_logits",),), "teacher": (("view_logits",),)}
    samples = True

    def __init__(
        self,
        temperature: Positive = 0.1,
        sharpness: Positive = 0.04,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
    ):
        super().__init__()
        self.temperature, self.sharpness, self.momentum = temperature, sharpness, momentum
        self.centre: Tensor

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The centre begins at zero."""
        logits = full(teacher["view_logits"])
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

    def keep(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"logits": full(teacher["view_logits"]).mean(1), "counted": self.weight(batch)}

    def after_step(self, kept: dict[str, Tensor]) -> None:
        if kept and len(kept["logits"]):
            counted = kept["counted"].unsqueeze(1).to(kept["logits"].dtype)
            number = counted.sum()
            mean = torch.where(counted > 0, kept["logits"], 0.0).sum(0) / number.clamp_min(1)
            self.centre.copy_(
                torch.where(
                    number > 0,
                    self.momentum * self.centre + (1 - self.momentum) * mean,
                    self.centre,
                )
            )
