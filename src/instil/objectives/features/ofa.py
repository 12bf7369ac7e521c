"""One for all: stages of any architecture speak in logits, through an exit each, and all learn a target-enhanced teacher."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    Outputs,
    Positive,
    closest,
    drop_unlabelled_gradient,
    to_float32,
)
from instil.functional.divergences import expectation
from instil.functional.feature_maps import as_map
from instil.functional.logits import apply_reduction, require_class_target, require_same_logits
from instil.functional.pairs import feature_levels
from instil.modules.adapters import match_dtype
from instil.modules.connectors import NORMS, Norm, require_norm

Form = Literal["code", "paper"]
FORMS = ("code", "paper")
FINEST = 7  # positions a side at which tokens are not merged any more


def ofa_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    gamma: float = 1.5,
    temperature: float = 1.0,
    form: Form = "code",
    reduction: str = "mean",
) -> Tensor:
    """Cross-entropy to the teacher p with an enhanced target y (Hao et al. 2023, section 3.3).

    ``form="code"``: the weight of class c is (p_c + [c = y])^gamma - [c = y], as the authors published. ``form="paper"``: it is (1 + p_y)^gamma for
    the target and p_c for the others, so that the cross-entropy of the label is in it. Logits (..., C) and class indices (...); an unlabelled item
    (-100) is 0 and does not count. Raises ValueError for other shapes and one class.
    """
    require_same_logits(student, teacher, 2)
    require_class_target(student, target)
    student, teacher = drop_unlabelled_gradient(target, student, teacher)
    if form not in FORMS:
        raise ValueError(f"form: no form '{form}'; {closest(form, FORMS)}")
    probability = (to_float32(teacher) / temperature).softmax(-1)
    true = F.one_hot(target.clamp_min(0), student.shape[-1]).to(probability.dtype)
    enhanced = (probability + true) ** gamma
    weight = enhanced - true if form == "code" else torch.where(true > 0, enhanced, probability)
    crossed = expectation(weight, (to_float32(student) / temperature).log_softmax(-1))
    return apply_reduction(-crossed, reduction, target)


def _halving(source: int, target: int, norm: Norm) -> nn.Sequential:
    """Two depthwise separable convolutions, the first of stride 2."""

    def separable(width: int, stride: int) -> list[nn.Module]:
        deep = nn.Conv2d(source, source, 3, stride, 1, groups=source, bias=False)
        return [deep, nn.Conv2d(source, width, 1, bias=False), NORMS[norm](width), nn.ReLU()]

    return nn.Sequential(*separable(source, 2), *separable(target, 1))


class MapExit(nn.Module):
    """Logits of a map (N, C, H, W): halved as often as the net itself still will, averaged, classified."""

    def __init__(self, stage: Tensor, deepest: Tensor, classes: int, norm: Norm):
        super().__init__()
        channels, width = stage.shape[1], as_map(deepest).shape[1]
        halvings = max(0, round(math.log2(max(stage.shape[2:]) / max(as_map(deepest).shape[2:]))))
        widths = [channels * 2**number for number in range(halvings)] + [width]
        blocks = [_halving(source, target, norm) for source, target in itertools.pairwise(widths)]
        self.body = nn.Sequential(*blocks) if blocks else nn.Conv2d(channels, width, 1)
        self.head = nn.Linear(width, classes)

    def forward(self, stage: Tensor) -> Tensor:
        logits: Tensor = self.head(
            self.body(match_dtype(self, to_float32(as_map(stage)))).mean((2, 3))
        )
        return logits


class TokenExit(nn.Module):
    """Logits of tokens (N, L, D): merged two by two while they are many, a few blocks, and the class token or their mean classified."""

    def __init__(self, stage: Tensor, blocks: int, classes: int):
        super().__init__()
        width, side = stage.shape[2], as_map(stage).shape[2]
        self.merge = nn.ModuleList()
        while side > FINEST and side % 2 == 0:
            self.merge.append(
                nn.Sequential(
                    nn.LayerNorm(4 * width), nn.Linear(4 * width, width, bias=False), nn.GELU()
                )
            )
            side //= 2
        heads = 4 if width % 4 == 0 else 1
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
                )
                for _ in range(blocks)
            )
        )
        self.head = nn.Linear(width, classes)

    def forward(self, stage: Tensor) -> Tensor:
        stage = match_dtype(self, to_float32(stage))
        grid = as_map(stage)
        leading = stage.shape[1] - grid.shape[2] * grid.shape[3]
        for merge in self.merge:
            grid = merge(F.pixel_unshuffle(grid, 2).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        tokens = self.blocks(torch.cat([stage[:, :leading], grid.flatten(2).mT], 1))
        logits: Tensor = self.head(tokens[:, 0] if leading else tokens.mean(1))
        return logits


class OFA(LabelObjective):
    """The student's logits, and those of an exit at each of its ``features``, near the teacher's; summed. Convolutions, transformers and others
    learn from each other, as features are never compared. It is a cross-entropy: at a match it is the teacher's weighted entropy, not zero.

    ``gamma``: above 1 the target counts more and what the teacher is not sure of less; 1.5 for ResNet18 <- DeiT-T on ImageNet, 1 is plain.
    ``temperature``: of both sides; without a factor.
    ``form``: code is the authors', paper has the label's own cross-entropy in it and leaves the other classes as they are.
    ``norm``: in the exits of maps; group normalises each sample, batch is the authors' BatchNorm, which couples the samples.
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
        deviations="form: 'code' (default, of the published results) raises every class to gamma and takes the label's cross-entropy out, 'paper' "
        "does neither; exits end in the width of the student's deepest stage (in the code the wider of both nets' embeddings) and normalise each "
        "sample; norm: 'batch' is the code's",
        equation=r"-\sum_{b=0}^{B} \sum_c \left[ (p^t_c + \mathbb{1}[c = y])^\gamma - \mathbb{1}[c = y] \right] \log p^{s,b}_c, \quad b = 0 \text{ "
        r"the logits, others the exits}",
        use="Teacher and student of different families (CNN, transformer, MLP), whose features have nothing in common. It takes the place of kd, "
        "and adds an exit at each stage that is trained with the student and dropped afterwards: convolutions that halve, or transformer blocks.",
        pitfalls="It needs labels, and the same classes in the same order. Gamma is set for each pair; the code's examples have 1.5 on ImageNet "
        "and 1 on CIFAR-100. The authors call distillation across families unstable and advise to lower the weight. The published weight is 1; "
        "values do not come near 0.",
    )
    needs: ClassVar = {"student": (("features",), ("logits",)), "teacher": (("logits",),)}
    per_sample = True

    def __init__(
        self,
        gamma: Positive = 1.5,
        temperature: Positive = 1.0,
        form: Form = "code",
        norm: Literal["group", "batch"] = "group",
    ):
        super().__init__()
        require_norm(norm, "group", "batch")
        if form not in FORMS:
            raise ValueError(f"form: no form '{form}'; {closest(form, FORMS)}")
        self.gamma, self.temperature, self.form, self.norm = gamma, temperature, form, norm
        self.exits = nn.ModuleList()

    @property
    def couples(self) -> bool:
        return self.norm == "batch"

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """Make an exit for every stage. Raises ValueError for logits of more than samples and classes."""
        require_same_logits(student["logits"], teacher["logits"], 2)
        if student["logits"].ndim != 2:
            raise ValueError(
                f"exits classify samples, and the logits are {tuple(student['logits'].shape)}; ofa needs logits (N, C)"
            )
        mine, classes = feature_levels(student), student["logits"].shape[1]
        self.exits = nn.ModuleList()
        for number, stage in enumerate(mine):
            tokens = stage.ndim == 3
            made = (
                TokenExit(stage, max(len(mine) - 1 - number, 1), classes)
                if tokens
                else MapExit(as_map(stage), mine[-1], classes, self.norm)
            )
            self.exits.append(made.to(stage.device, to_float32(stage).dtype))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        spoken = [
            student["logits"],
            *(made(stage) for made, stage in zip(self.exits, feature_levels(student), strict=True)),
        ]
        options = self.gamma, self.temperature, self.form, "mean" if self.couples else "none"
        terms = [ofa_loss(logits, teacher["logits"], batch["label"], *options) for logits in spoken]
        return torch.stack(terms).sum(0)
