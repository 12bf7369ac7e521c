"""Self-distillation by made-up soft labels: the student's own confidence for the label, Zipf's law by rank for the others."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    LabelObjective,
    NonNegative,
    Outputs,
    closest,
    full,
    mean,
    replace_uncounted,
)
from instil.functional.divergences import expectation
from instil.functional.feature_maps import as_map
from instil.functional.logits import require_class_target, require_same_logits
from instil.functional.pairs import feature_levels
from instil.modules.adapters import match_dtype

ZipfForm = Literal["code", "paper"]
NEAREST_TO_SURE = 1e-6  # added to one minus a probability before it divides
SMOOTHING = 0.1  # of the weak classifier's labels


def uskd_loss(
    student: Tensor,
    weak: Tensor,
    target: Tensor,
    alpha: float = 1.0,
    beta: float = 0.1,
    mu: float = 0.005,
    form: ZipfForm = "code",
) -> Tensor:
    """alpha label part + beta other classes + mu weak classifier's label loss (Yang et al. 2023, unified self-distillation).

    Logits of student and weak classifier (N, C) and a target, class indices (N,) or shares of at most two classes (N, C) as mixup makes them, give
    a scalar: the label part subtracts a mean over the batch. Rows without a label (-100) do not count. ``form``: the code ranks the other classes by
    a sum of probabilities of the weak and log-probabilities of the strong classifier, the label among them; the paper by probabilities, without it.
    Raises ValueError for one class and where shapes do not fit.
    """
    require_same_logits(student, weak, classes=2)
    share, label, soft = label_shares(student, target)
    counted = share.sum(-1) > 0
    # The centre below is a mean over the batch, so unlabelled rows are replaced before it.
    student, weak = replace_uncounted(student, counted), replace_uncounted(weak, counted)
    log_strong, log_weak = full(student).log_softmax(-1), full(weak).log_softmax(-1)
    log_label = log_strong.gather(-1, label)
    confidence = log_label.detach().exp().square()
    centre = (confidence * counted.unsqueeze(-1)).sum(0) / counted.sum().clamp_min(1)
    wanted = torch.where(share > 0, confidence + share - centre, 0.0)
    of_label = -(wanted * log_label).sum(-1)

    is_label = torch.zeros_like(log_strong).scatter(-1, label, (share > 0).to(log_strong.dtype)) > 0
    zipf = zipf_shares(log_strong.detach(), log_weak.detach(), is_label, form)
    log_others = (
        full(student).masked_fill(is_label, torch.finfo(log_strong.dtype).min).log_softmax(-1)
    )
    of_others = -expectation(zipf, log_others)

    smoothed = (1 - SMOOTHING) * soft + SMOOTHING / student.shape[-1]
    of_weak = -(smoothed * log_weak).sum(-1)
    return mean(
        torch.where(counted, alpha * of_label + beta * of_others + mu * of_weak, 0.0),
        counted.to(log_strong.dtype),
    )


def label_shares(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shares and indices of the label's classes, (N, K) both, a share of 0 meaning none; and the whole soft label (N, C)."""
    if target.shape == student.shape:
        soft = target.to(full(student).dtype).clamp_min(0)
        share, label = soft.topk(2)
        return share, label, soft
    require_class_target(student, target)
    share, label = (
        (target >= 0).to(full(student).dtype).unsqueeze(-1),
        target.clamp_min(0).unsqueeze(-1),
    )
    return share, label, torch.zeros_like(full(student)).scatter(-1, label, share)


def zipf_shares(
    log_strong: Tensor, log_weak: Tensor, is_label: Tensor, form: ZipfForm = "code"
) -> Tensor:
    """(N, C): 1 / rank, normalized over the classes that are not the label, by how likely both classifiers find them among those."""
    strong, weak = log_strong if form == "code" else log_strong.exp(), log_weak.exp()
    score = sum(
        each / (1 - (each * is_label).sum(-1, keepdim=True) + NEAREST_TO_SURE)
        for each in (weak, strong)
    )
    assert isinstance(score, Tensor)
    if form == "paper":
        score = score.masked_fill(is_label, -torch.inf)
    rank = score.argsort(-1, descending=True).argsort(-1)
    share = torch.where(is_label, 0.0, 1 / (1 + rank.to(weak.dtype)))
    return share / share.sum(-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)


class USKD(LabelObjective):
    """NKD without a teacher: soft labels from the student's own logits and from a weak classifier on an earlier stage.

    The label may be shares of two classes (N, C), as mixup and cutmix make them. The label loss itself is not in it.

    ``alpha``: weight of the label part; 1 on ImageNet, 0.1 on CIFAR-100.
    ``beta``: weight of the other classes.
    ``mu``: weight of the weak classifier's label loss; 0.005 on ImageNet, 0.1 on CIFAR-100.
    ``stage``: the stage of ``features`` that the weak classifier reads, from the end if negative; a student without features gives its embedding.
    ``form``: how the other classes are ranked: ``code`` sums probabilities and log-probabilities, ``paper`` two probabilities.

    Raises ValueError for a stage that is not there.
    """

    card = Card(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
        "https://arxiv.org/abs/2303.13005",
        "ICCV",
        2023,
        source="logits",
        labels=("single",),
        couples=True,
        zero_at_match=False,
        deviations="The code, of which the published results are, ranks by a sum of a probability and a log-probability, and ranks the label too; "
        "form=paper ranks by two probabilities among the other classes. Of a label that is all one class, the code leaves out a second class, too.",
        equation=r"-\alpha \Big( 1 + p_y^2 - \frac{1}{N} \sum_{m} p_{m,y_m}^2 \Big) \log p_y - \beta \sum_{c \ne y} \zeta_c \log q_c - \mu "
        r"\sum_{c} \tilde{y}_c \log w_c, \quad \zeta_c \propto \frac{1}{\mathrm{rank}(c)}, \quad q \text{ is } p \text{ over } c \ne y, \quad w "
        r"\text{ the weak classifier}",
        use="Self-distillation for one training of one net: no teacher, no second forward pass, only a linear classifier on an earlier stage. For "
        "classifiers with labels, also with mixed ones.",
        pitfalls="The plain cross-entropy goes beside it. Weights differ tenfold and more between data sets. Mean and ranks make it depend on the "
        "batch. The target of the other classes depends on their ranks alone, however likely they are.",
    )
    needs: ClassVar = {"student": (("logits",), ("features", "embedding")), "teacher": ()}
    samples = True

    def __init__(
        self,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 0.1,
        mu: NonNegative = 0.005,
        stage: int = -2,
        form: Literal["code", "paper"] = "code",
    ):
        super().__init__()
        if form not in ("code", "paper"):
            raise ValueError(
                f"form is 'code' or 'paper', not '{form}'; {closest(form, ('code', 'paper'))}"
            )
        self.alpha, self.beta, self.mu, self.stage, self.form = alpha, beta, mu, stage, form

    def build(self, student: Outputs, teacher: Outputs) -> None:
        """The weak classifier."""
        pooled, classes = self.pooled(student), student["logits"].shape[-1]
        self.classifier = nn.Linear(
            pooled.shape[1], classes, device=pooled.device, dtype=pooled.dtype
        )

    def pooled(self, student: Outputs) -> Tensor:
        """(N, D): what the weak classifier reads."""
        if self.reads["student"][1] == "embedding":
            return full(student["embedding"]).flatten(1)
        features = feature_levels(student)
        if not -len(features) <= self.stage < len(features):
            raise ValueError(
                f"stage: the student has no stage {self.stage}; it gives {len(features)}"
            )
        return full(as_map(features[self.stage])).mean((-2, -1))

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        weak: Tensor = self.classifier(match_dtype(self.classifier, self.pooled(student)))
        return uskd_loss(
            student["logits"], weak, batch["label"], self.alpha, self.beta, self.mu, self.form
        )
