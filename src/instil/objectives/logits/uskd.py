"""Unified self-distillation: soft labels from the student's confidence and Zipf's law."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import Batch, Card, NonNegative, Objective, Outputs, check_bounds, mean, to_float32
from instil.functional.choices import require_choice
from instil.functional.divergences import expectation
from instil.functional.feature_maps import as_map
from instil.functional.logits import require_class_target, require_same_logits
from instil.functional.pairs import feature_levels
from instil.functional.pooling import mean_positions
from instil.items import Items, replace_uncounted
from instil.modules.adapters import match_dtype

ZipfForm = Literal["code", "paper"]
DENOMINATOR_EPSILON = 1e-6
"""Added to ``1 - probability`` before a division."""
SMOOTHING = 0.1
"""Label smoothing of the weak classifier's loss."""


@check_bounds
def uskd_loss(
    student_logits: Tensor,
    weak_logits: Tensor,
    target: Tensor,
    alpha: NonNegative = 1.0,
    beta: NonNegative = 0.1,
    mu: NonNegative = 0.005,
    form: ZipfForm = "code",
) -> Tensor:
    """Unified self-knowledge distillation loss (Yang et al. 2023).

    Weighted sum of the label term, the cross-entropy of the other classes with Zipf labels, and the
    label loss of a weak classifier. The label term subtracts a mean over the batch.

    Args:
        student_logits: (N, C).
        weak_logits: logits (N, C) of the weak classifier.
        target: class indices (N,), or shares (N, C) of at most two classes, as in mixup; items
            without a label (``-100``) do not count.
        alpha: weight of the label term.
        beta: weight of the other classes.
        mu: weight of the weak classifier's label loss.
        form: ranking of the other classes, see ``zipf_shares``.

    Returns:
        Scalar.

    Raises:
        ValueError: if the shapes do not fit or there is only one class.

    Example:
        >>> import torch
        >>> uskd_loss(torch.eye(3)[:2], torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(1.0522)
    """
    require_same_logits(student_logits, weak_logits, classes=2)
    share, label, soft_label = label_shares(student_logits, target)
    counted = share.sum(-1) > 0
    # The centre below is a mean over the batch, so unlabelled rows are replaced before it.
    student_logits = replace_uncounted(student_logits, counted)
    weak_logits = replace_uncounted(weak_logits, counted)
    log_strong, log_weak = (
        to_float32(student_logits).log_softmax(-1),
        to_float32(weak_logits).log_softmax(-1),
    )
    log_label = log_strong.gather(-1, label)
    # Detached: the student must not lower its loss by becoming less confident.
    confidence = log_label.detach().exp().square()
    centre = (confidence * counted.unsqueeze(-1)).sum(0) / counted.sum().clamp_min(1)
    label_weight = torch.where(share > 0, confidence + share - centre, 0.0)
    label_loss = -(label_weight * log_label).sum(-1)

    has_share = (share > 0).to(log_strong.dtype)
    is_label = torch.zeros_like(log_strong).scatter(-1, label, has_share) > 0
    zipf = zipf_shares(log_strong.detach(), log_weak.detach(), is_label, form)
    # The lowest finite logit instead of -inf: if all classes are labels, no NaN arises.
    lowest = torch.finfo(log_strong.dtype).min
    log_others = to_float32(student_logits).masked_fill(is_label, lowest).log_softmax(-1)
    others_loss = -expectation(zipf, log_others)

    smoothed = (1 - SMOOTHING) * soft_label + SMOOTHING / student_logits.shape[-1]
    weak_loss = -(smoothed * log_weak).sum(-1)
    values = alpha * label_loss + beta * others_loss + mu * weak_loss
    return mean(torch.where(counted, values, 0.0), counted.to(log_strong.dtype))


def label_shares(student_logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sparse and dense form of hard or mixed labels.

    Args:
        student_logits: (N, C).
        target: class indices (N,), or shares (N, C) of at most two classes.

    Returns:
        Shares (N, K), class indices (N, K) and soft labels (N, C); K is 1 for class indices, else
        2. A share of 0 marks an unused entry.
    """
    if target.shape == student_logits.shape:
        soft_label = target.to(to_float32(student_logits).dtype).clamp_min(0)
        share, label = soft_label.topk(2)
        return share, label, soft_label
    require_class_target(student_logits, target)
    share = (target >= 0).to(to_float32(student_logits).dtype).unsqueeze(-1)
    label = target.clamp_min(0).unsqueeze(-1)
    return share, label, torch.zeros_like(to_float32(student_logits)).scatter(-1, label, share)


def zipf_shares(
    log_strong: Tensor, log_weak: Tensor, is_label: Tensor, form: ZipfForm = "code"
) -> Tensor:
    """Soft labels by Zipf's law: 1 / rank, normalised over the non-label classes.

    Args:
        log_strong: log-probabilities (N, C) of the student.
        log_weak: log-probabilities (N, C) of the weak classifier.
        is_label: mask (N, C) of the label's classes.
        form: ``"code"`` ranks all classes by the sum of the weak classifier's probabilities and
            the student's log-probabilities; ``"paper"`` ranks the other classes by probabilities.

    Returns:
        (N, C), 0 for the label's classes.
    """
    strong = log_strong if form == "code" else log_strong.exp()
    score = _relative(log_weak.exp(), is_label) + _relative(strong, is_label)
    if form == "paper":
        score = score.masked_fill(is_label, -torch.inf)
    # A double argsort turns scores into ranks.
    rank = score.argsort(-1, descending=True).argsort(-1)
    # Ranks start at 0, Zipf's law at 1.
    share = torch.where(is_label, 0.0, 1 / (1 + rank.to(log_weak.dtype)))
    return share / share.sum(-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)


def _relative(values: Tensor, is_label: Tensor) -> Tensor:
    """Values (N, C) divided by 1 minus the label's values."""
    return values / (1 - (values * is_label).sum(-1, keepdim=True) + DENOMINATOR_EPSILON)


class USKD(Objective):
    """Self-distillation with soft labels from the student and a weak classifier on an early stage.

    Without ``features`` the weak classifier reads the embedding. The label may be shares of two
    classes (N, C), as in mixup and cutmix. The label loss is not included.
    """

    card = Card(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with "
        "Normalized Loss and Customized Soft Labels",
        "https://arxiv.org/abs/2303.13005",
        "ICCV",
        2023,
        source="logits",
        labels=("single",),
        couples=True,
        zero_at_match=False,
        published_weight=1.0,
        weight_setting="the authors' code, ImageNet, ResNet18; with the plain cross-entropy",
        deviations="The published results are from the code. It ranks by the sum of a "
        "probability and a log-probability, and ranks the label too. With form=paper, only the "
        "other classes are ranked, by the sum of two probabilities. For a label that is "
        "entirely one class, the code also leaves out a second class.",
        equation=r"-\alpha \Big( 1 + p_y^2 - \frac{1}{N} \sum_{m} p_{m,y_m}^2 \Big) \log p_y - "
        r"\beta \sum_{c \ne y} \zeta_c \log q_c - \mu \sum_{c} \tilde{y}_c \log w_c, \quad "
        r"\zeta_c \propto \frac{1}{\mathrm{rank}(c)}, \quad q \text{ is } p \text{ over } c \ne "
        r"y, \quad w \text{ the weak classifier}",
        use="Self-distillation in a single training of one network: no teacher and no second "
        "forward pass, only a linear classifier on an early stage. For classifiers with labels, "
        "including mixed ones.",
        pitfalls="Add the plain cross-entropy. The published options differ by a factor of ten or "
        "more between data sets. The mean and the ranks make the loss depend on the batch. The "
        "target of the other classes depends only on their ranks, not on their probabilities.",
    )
    needs: ClassVar = {"student": (("logits",), ("features", "embedding")), "teacher": ()}
    items = Items(per_sample=True, labelled=True)

    def __init__(
        self,
        alpha: Annotated[
            NonNegative, Doc("weight of the label term; 1 on ImageNet, 0.1 on CIFAR-100")
        ] = 1.0,
        beta: Annotated[NonNegative, Doc("weight of the other classes")] = 0.1,
        mu: Annotated[
            NonNegative,
            Doc("weight of the weak classifier's label loss; 0.005 on ImageNet, 0.1 on CIFAR-100"),
        ] = 0.005,
        stage: Annotated[
            int,
            Doc("index of the feature stage for the weak classifier; negative: from the end"),
        ] = -2,
        form: Annotated[
            ZipfForm,
            Doc(
                "ranking of the other classes: sum as in the code, or of two probabilities (paper)"
            ),
        ] = "code",
    ):
        super().__init__()
        require_choice("form", form, ("code", "paper"))
        self.alpha = alpha
        self.beta = beta
        self.mu = mu
        self.stage = stage
        self.form = form

    def build(self, student_outputs: Outputs, teacher_outputs: Outputs) -> None:
        """Create the weak classifier.

        Raises:
            ValueError: if the student has no stage with the index ``stage``.
        """
        pooled = self.pooled(student_outputs)
        classes = student_outputs["logits"].shape[-1]
        self.classifier = nn.Linear(
            pooled.shape[1], classes, device=pooled.device, dtype=pooled.dtype
        )

    def pooled(self, student_outputs: Outputs) -> Tensor:
        """Input of the weak classifier (N, D)."""
        if self.reads["student"][1] == "embedding":
            return to_float32(student_outputs["embedding"]).flatten(1)
        features = feature_levels(student_outputs)
        if not -len(features) <= self.stage < len(features):
            raise ValueError(
                f"stage: the student has no stage {self.stage}. "
                f"Expected an index into {len(features)} stages."
            )
        return mean_positions(to_float32(as_map(features[self.stage])))

    def forward(self, student_outputs: Outputs, teacher_outputs: Outputs, batch: Batch) -> Tensor:
        pooled = self.pooled(student_outputs)
        weak_logits: Tensor = self.classifier(match_dtype(self.classifier, pooled))
        return uskd_loss(
            student_outputs["logits"],
            weak_logits,
            batch["label"],
            self.alpha,
            self.beta,
            self.mu,
            self.form,
        )
