"""Focal and global distillation: what stands out in the teacher's map, inside and outside of the objects, and the context of the whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from instil.core import Batch, Card, NonNegative, Outputs, Positive, to_float32
from instil.functional.attention_maps import attention_weights, channel_strength, position_strength
from instil.functional.feature_maps import as_map, require_same_shape
from instil.functional.logits import apply_reduction
from instil.functional.pairs import Pairs, feature_levels
from instil.modules.adapters import Adapter
from instil.objectives.bases.feature_objective import FeatureObjective

Weights = tuple[float, float, float]


def box_masks(boxes: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Weights of the positions (N, 1, H, W) inside and outside of boxes (N, M, 4) (Yang et al. 2022).

    Boxes are left, top, right, bottom as fractions of the image; one without an area is padding. Every position that a box touches has one over
    the number of these, the largest where boxes overlap; every other has one over the number of those.
    """
    height, width = grid
    boxes = F.pad(to_float32(boxes), (0, 0, 0, 1))  # one more without an area, so that there is one
    low, high = boxes[..., :2], boxes[..., 2:]
    size = torch.tensor([width, height], dtype=low.dtype, device=low.device)
    first, last = (low * size).floor(), (high * size).ceil()
    columns, rows = torch.arange(width, device=low.device), torch.arange(height, device=low.device)
    across = (columns >= first[..., :1]) & (columns <= last[..., :1])
    along = (rows >= first[..., 1:]) & (rows <= last[..., 1:])
    inside = along[..., :, None] & across[..., None, :] & (high > low).all(-1)[..., None, None]
    share = (1 / (last - first + 1).clamp_min(1).prod(-1))[..., None, None]
    foreground = (inside * share).amax(1, keepdim=True)
    outside = (foreground == 0).to(low.dtype)
    return foreground, outside / outside.sum((2, 3), keepdim=True).clamp_min(1)


def fgd_loss(
    student: Tensor,
    teacher: Tensor,
    foreground: Tensor,
    background: Tensor,
    temperature: float = 0.5,
    weights: Weights = (1e-3, 5e-4, 1e-3),
    reduction: str = "mean",
) -> Tensor:
    """The focal part (Yang et al. 2022): squared differences weighted by the teacher's attention, and the difference of the attentions.

    Maps of one shape (N, C, H, W), position weights (N, 1, H, W) of both parts of the image, and the weights of foreground, background and
    attention; sums over the elements. With ``reduction="none"`` one value a sample. Raises ValueError where the shapes differ.
    """
    student, teacher = require_same_shape(student, teacher, "fgd_loss")
    squares, apart = (student - teacher).square(), torch.zeros_like(student[:, 0, 0, 0])
    for strength in (position_strength, channel_strength):
        mine, theirs = (
            attention_weights(strength(stage), temperature) for stage in (student, teacher)
        )
        squares = squares * theirs
        apart = apart + (mine - theirs).abs().flatten(1).sum(1)
    inside, outside = ((squares * part).flatten(1).sum(1) for part in (foreground, background))
    return apply_reduction(
        weights[0] * inside + weights[1] * outside + weights[2] * apart, reduction
    )


class GlobalContext(nn.Module):
    """A map plus what a bottleneck makes of its context, the mean of its positions by learned attention; at first the map itself."""

    def __init__(self, channels: int):
        super().__init__()
        middle = max(1, channels // 2)
        self.attend = nn.Conv2d(channels, 1, 1, bias=False)  # its softmax would not see a bias
        self.add = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.GroupNorm(1, middle),
            nn.ReLU(),
            nn.Conv2d(middle, channels, 1),
        )
        nn.init.kaiming_normal_(self.attend.weight, nonlinearity="relu")
        for parameter in self.add[3].parameters():
            nn.init.zeros_(parameter)

    def forward(self, stage: Tensor) -> Tensor:
        attention = self.attend(stage).flatten(2).softmax(2)
        context = (stage.flatten(2) * attention).sum(2)[:, :, None, None]
        return stage + self.add(context)  # type: ignore[no-any-return]


class Contexts(nn.Module):
    """The adapter of a student stage, and the global context of either side."""

    def __init__(self, student: Tensor, teacher: Tensor):
        super().__init__()
        channels = as_map(teacher).shape[1]
        self.align = Adapter(student, teacher)
        self.student, self.teacher = GlobalContext(channels), GlobalContext(channels)
        self.to(student.device, to_float32(student).dtype)


class FGD(FeatureObjective):
    """Each student stage near the teacher's where this attends, objects apart from the background, and in its global context; summed over the pairs.

    ``boxes`` of the batch, (N, M, 4), are left, top, right, bottom as fractions of the image, rows of zeros being padding. Where there are none the
    whole map is background: the attention and the global part remain. Defaults are those for one stage detectors with anchors; for two stages the
    authors have a twentieth of the first three weights and a tenth of ``context``.

    ``temperature``: of the attentions.
    ``foreground``: weight of what lies in boxes.
    ``background``: weight of the rest.
    ``attention``: weight of the difference of the attentions.
    ``context``: weight of the global part.
    """

    card = Card(
        "Focal and global knowledge distillation for detectors",
        "https://arxiv.org/abs/2111.11837",
        "CVPR",
        2022,
        source="features",
        algorithms=("attention",),
        tasks=("classification", "detection"),
        deviations="A box has the positions that it touches, and one more at right and below, as in the code. "
        "Zero at a match until the two contexts have learned to differ",
        equation=r"\sum_l \left[ \sum_{c,p} (\alpha F_p + \beta B_p) A^t_p A^t_c \left( f^t - r(f^s) \right)_{cp}^2 + \gamma \sum_{k \in \{p,c\}} "
        r"\lVert A^s_k - A^t_k \rVert_1 + \lambda \lVert g^s(r(f^s)) - g^t(f^t) \rVert_2^2 \right], \quad A_p = HW\, \mathrm{softmax}_p "
        r"\frac{\overline{|f|}_p}{T}, \; A_c = C\, \mathrm{softmax}_c \frac{\overline{|f|}_c}{T}",
        use="Detectors with feature pyramids and boxes in the batch: foreground, weighted by the size of each box, and background are taught "
        "apart. It costs an adapter and two small context blocks a level.",
        pitfalls="It is a sum over elements, and the weights belong to the detector: anchor free ones have 1.6e-3, 8e-4, 8e-4 and 8e-6 at a "
        "temperature of 0.8, the code's RetinaNet an attention weight of 5e-4. Gradients were clipped at a norm of 35. A user reports that a "
        "stronger teacher of another family (Swin) made the student worse.",
    )

    def __init__(
        self,
        temperature: Positive = 0.5,
        foreground: NonNegative = 1e-3,
        background: NonNegative = 5e-4,
        attention: NonNegative = 1e-3,
        context: NonNegative = 5e-6,
        pairs: Pairs = "auto",
    ):
        super().__init__(pairs)
        self.temperature, self.foreground, self.background = temperature, foreground, background
        self.attention, self.context = attention, context

    def connect(self, student: Tensor, teacher: Tensor) -> tuple[nn.Module, str]:
        made = Contexts(student, teacher)
        return made, f"{made.align}, and a global context on both sides"

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        mine, theirs = feature_levels(student), feature_levels(teacher)
        terms = []
        for made, (i, j) in zip(self.adapters, self.matched, strict=True):
            assert isinstance(made, Contexts)
            aligned, target = made.align(mine[i]), to_float32(as_map(theirs[j]))
            boxes = batch.get("boxes", aligned.new_zeros(len(aligned), 0, 4))
            masks = box_masks(boxes, (target.shape[2], target.shape[3]))
            focal = fgd_loss(
                aligned,
                target,
                *masks,
                self.temperature,
                (self.foreground, self.background, self.attention),
                "none",
            )
            whole = (
                (made.student(aligned) - made.teacher(target.to(aligned.dtype)))
                .square()
                .flatten(1)
                .sum(1)
            )
            terms.append(focal + self.context * whole)
        return torch.stack(terms).sum(0)
