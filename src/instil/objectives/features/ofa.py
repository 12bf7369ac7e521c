"""One for all: exits translate levels of any architecture to logits that learn from the teacher."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, Objective, Outputs, Positive, check_bounds, to_float32
from instil.functional.choices import require_choice
from instil.functional.divergences import expectation
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.pairs import feature_levels
from instil.items import Items, drop_unlabelled_gradient
from instil.modules.connectors import require_norm
from instil.modules.exits import MapExit, TokenExit

Form = Literal["code", "paper"]
FORMS = ("code", "paper")


@check_bounds
def ofa_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor,
    gamma: Positive = 1.5,
    temperature: Positive = 1.0,
    form: Form = "code",
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy to the teacher with an enhanced target class (Hao et al. 2023, section 3.3).

    With teacher probabilities p and label y, the weight of class c is
    ``(p_c + [c = y]) ** gamma - [c = y]`` for ``form="code"``. For ``form="paper"`` it is
    ``(1 + p_y) ** gamma`` for the target and ``p_c`` for the others, which includes the
    cross-entropy with the label.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        target: class indices (...); ``-100`` marks an unlabelled item, whose loss is 0.
        gamma: exponent of the enhanced probabilities, > 0.
        temperature: softmax temperature of both sides, > 0.
        form: ``"code"`` (the authors' published code) or ``"paper"``.
        reduction: ``"mean"`` over the labelled items, or ``"none"`` (one value per item).

    Returns:
        Scalar, or (...) for ``reduction="none"``.

    Raises:
        ValueError: if the shapes do not fit, there is only one class, or the form is unknown.

    Example:
        >>> import torch
        >>> ofa_loss(torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1]))
        tensor(1.2896)
    """
    require_same_logits(student_logits, teacher_logits, 2)
    require_class_target(student_logits, target)
    require_choice("form", form, FORMS)
    student_logits, teacher_logits = drop_unlabelled_gradient(
        target, student_logits, teacher_logits
    )
    probability = (to_float32(teacher_logits) / temperature).softmax(-1)
    # Label -100 has no class: index 0 stands in, and ``apply_reduction`` discards the item.
    one_hot = F.one_hot(target.clamp_min(0), student_logits.shape[-1]).to(probability.dtype)
    enhanced = (probability + one_hot) ** gamma
    if form == "code":
        weight = enhanced - one_hot
    else:
        weight = torch.where(one_hot > 0, enhanced, probability)
    log_probability = (to_float32(student_logits) / temperature).log_softmax(-1)
    return apply_reduction(-expectation(weight, log_probability), reduction, target)


class OFA(Objective):
    """Enhanced cross-entropy to the teacher, for the logits and an exit at each feature level.

    The sum over the logits and the exits. Features are never compared, so any architectures can be
    combined. At a match the value is the weighted entropy of the teacher, not zero.
    """

    card = Card(
        "One-for-all: bridge the gap between heterogeneous architectures in knowledge distillation",
        "https://arxiv.org/abs/2310.19444",
        "NeurIPS",
        2023,
        source="features",
        algorithms=("adaptive",),
        labels=("single",),
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, ResNet18 <- DeiT-T",
        deviations="form: 'code' (default, of the published results) raises every class to gamma "
        "and removes the cross-entropy of the label; 'paper' does neither. Exits end in the width "
        "of the student's deepest level; in the code it is the wider of both networks' "
        "embeddings. They normalize each sample; norm: 'batch' is that of the code.",
        equation=r"-\sum_{b=0}^{B} \sum_c \left[ (p^t_c + \mathbb{1}[c = y])^\gamma - "
        r"\mathbb{1}[c = y] \right] \log p^{s,b}_c, \quad b = 0 \text{ the logits, others the "
        r"exits}",
        use="For teacher and student of different families (CNN, transformer, MLP), whose features "
        "have nothing in common. It replaces kd. It adds an exit at each level that is trained "
        "with the student and dropped afterwards: downsampling convolutions, or transformer "
        "blocks.",
        pitfalls="It needs labels, and the same classes in the same order. Tune gamma for each "
        "pair: the examples of the code use 1.5 on ImageNet and 1 on CIFAR-100. The authors call "
        "distillation across families unstable and advise a lower weight. Values do not approach "
        "0.",
    )
    needs: ClassVar = {"student": (("features",), ("logits",)), "teacher": (("logits",),)}
    items = Items(per_sample=True, labelled=True)

    def __init__(
        self,
        gamma: Annotated[
            Positive,
            Doc(
                "exponent; above 1 the target counts more and uncertain classes less. 1: plain "
                "cross-entropy; 1.5: ResNet18 <- DeiT-T on ImageNet"
            ),
        ] = 1.5,
        temperature: Annotated[
            Positive, Doc("softmax temperature of both sides, without a factor on the loss")
        ] = 1.0,
        form: Annotated[
            Form,
            Doc(
                "code: the authors' code; paper: includes the cross-entropy of the label and "
                "leaves the other classes unchanged"
            ),
        ] = "code",
        norm: Annotated[
            Literal["group", "batch"],
            Doc(
                "normalization in the exits of maps: group (per sample) or batch (the authors' "
                "BatchNorm, couples the samples)"
            ),
        ] = "group",
    ):
        super().__init__()
        require_norm(norm, "group", "batch")
        require_choice("form", form, FORMS)
        self.gamma = gamma
        self.temperature = temperature
        self.form = form
        self.norm = norm
        self.exits = nn.ModuleList()

    @property
    def couples(self) -> bool:
        """Whether BatchNorm makes the loss of a sample depend on the others."""
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Create an exit for every level.

        Raises:
            ValueError: if the logits are not (samples, classes).
        """
        require_same_logits(student["logits"], teacher["logits"], 2)
        if student["logits"].ndim != 2:
            raise ValueError(
                "logits: wrong number of dimensions. Expected (N, C), because the exits of ofa "
                f"classify samples, got {tuple(student['logits'].shape)}."
            )
        levels, classes = feature_levels(student), student["logits"].shape[1]
        self.exits = nn.ModuleList()
        for index, level in enumerate(levels):
            exit_: nn.Module
            if level.ndim == 3:
                exit_ = TokenExit(level, max(len(levels) - 1 - index, 1), classes)
            else:
                exit_ = MapExit(as_map(level), levels[-1], classes, self.norm)
            self.exits.append(exit_.to(level.device, to_float32(level).dtype))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        options = self.gamma, self.temperature, self.form, "mean" if self.couples else "none"
        student_logits = [student["logits"]]
        for exit_, level in zip(self.exits, feature_levels(student), strict=True):
            student_logits.append(exit_(level))
        terms = [
            ofa_loss(logits, teacher["logits"], batch["label"], *options)
            for logits in student_logits
        ]
        return torch.stack(terms).sum(0)
