"""DistiLLM-2: a divergence for the teacher's and one for the student's text of each prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from typing_extensions import Doc

from instil.cards import at_progress
from instil.core import (
    Batch,
    Card,
    NonNegative,
    Objective,
    Objectives,
    Outputs,
    Teacher,
    Update,
    mean,
    to_float32,
)
from instil.functional.feature_maps import require_dims
from instil.functional.text_pairs import (
    TextLogProbs,
    adaptive_skew,
    likelihood_gaps,
    skewed_forward,
    skewed_reverse,
)
from instil.generation.options import Sampling, SamplingOption
from instil.generation.rollout_options import RolloutOption, Rollouts
from instil.items import drop_unlabelled_gradient
from instil.schemes.bases.teacher_texts import TeacherTexts
from instil.schemes.bases.writer import GenerativeScheme

GAP_DECAY = 0.9
"""Decay of the running likelihood gaps per step."""


def distillm2_loss(
    teacher_text: TextLogProbs, student_text: TextLogProbs, skews: Tensor, reverse: float = 1.0
) -> Tensor:
    """DistiLLM-2 loss of pairs of texts (Ko et al. 2025, Eq. 6).

    ``(2 - reverse)`` times the skewed forward KL on the teacher's text plus ``reverse`` times the
    skewed reverse KL on the student's text.

    Args:
        teacher_text: student and teacher log-probabilities (N, T, V), and tokens (N, T), of the
            teacher's texts; token -100 marks positions that are not compared.
        student_text: the same of the student's texts.
        skews: skews of the teacher's and the student's text (N, 2).
        reverse: weight of the reverse divergence, in [0, 2].

    Returns:
        One value per pair (N,).

    Example:
        >>> import torch
        >>> student = torch.tensor([[[0.5, 0.5]]]).log()
        >>> teacher = torch.tensor([[[0.9, 0.1]]]).log()
        >>> text = student, teacher, torch.tensor([[0]])
        >>> distillm2_loss(text, text, torch.tensor([[0.1, 0.1]]))
        tensor([0.6725])
    """
    require_dims(skews, 2, "skews")
    forward_kl = skewed_forward(*teacher_text, skews[:, 0])
    reverse_kl = skewed_reverse(*student_text, skews[:, 1])
    return (2 - reverse) * forward_kl + reverse * reverse_kl


def reverse_weight(progress: float, gradual: bool = True) -> float:
    """Weight of the reverse divergence: 1, rising to 1.5 in the first half if ``gradual``."""
    return 1 + 0.5 * min(1.0, 2 * progress) if gradual else 1.0


class DistiLLM2(GenerativeScheme):
    """Skewed forward KL on teacher text and skewed reverse KL on student text (Ko et al. 2025).

    For each prompt the loss ``contrast`` is ``(2 - b)`` times the forward divergence plus ``b``
    times the reverse divergence (Eq. 6). The skew of each text depends on the distance between
    teacher and student on it. Objectives, such as cross_entropy, use the teacher's text, with
    their weights.
    """

    own_schedules = ("base_skew", "contrast_weight")
    card = Card(
        "DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs",
        "https://arxiv.org/abs/2503.07067",
        "ICML",
        2025,
        source="online",
        algorithms=("adaptive", "contrastive"),
        tasks=("language",),
        labels=("single",),
        equation=r"(2 - \beta)\, \mathrm{KL}(p^t \Vert \alpha p^t + (1 - \alpha) p^s)(y_t | x) + "
        r"\beta\, \mathrm{KL}(p^s \Vert (1 - \alpha) p^t + \alpha p^s)(y_s | x), \quad "
        r"y_t \sim p^t, \; y_s \sim p^s",
        use="For a student that already writes well. The forward divergence raises the probability "
        "of the teacher's text; the reverse divergence lowers that of the student's mistakes.",
        pitfalls="The logits of both texts and both networks are in memory at once, so memory "
        "grows with tokens times vocabulary. Both networks generate.",
        deviations="The student generates new text at each step, or with ``rollouts`` some steps "
        "earlier; in the paper once an epoch. The "
        "usual gap is a running mean, in the paper the mean over the texts of an epoch. No "
        "gradient passes through the skew; in the authors' code it does where the skew is not at "
        "a bound.",
    )
    running_gap: Tensor
    num_updates: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        base_skew: Annotated[
            float,
            Gt(0),
            Lt(1),
            Doc("largest skew; the skew of a text whose likelihood gap equals the running mean"),
        ] = 0.1,
        contrast_weight: Annotated[NonNegative, Doc("weight of the loss ``contrast``")] = 1.0,
        gradual: Annotated[
            bool, Doc("raise b from 1 to 1.5 in the first half of training; false: b is 1")
        ] = True,
        sampling: SamplingOption = Sampling(),
        rollouts: RolloutOption = Rollouts(),
    ):
        super().__init__(student, teacher, objectives, sampling, rollouts)
        self.teacher_texts = TeacherTexts()
        self.base_skew = base_skew
        self.contrast_weight = contrast_weight
        self.gradual = gradual
        self.register_buffer("running_gap", torch.zeros(2))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def before_step(self, batch: Batch) -> Batch:
        teacher_text = self.teacher_texts.replace_text(self, batch)
        return teacher_text | {"student_text": self.student_text(batch)}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {**super().counts(batch), "contrast": _has_both_texts(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        student, teacher = self.forward_both(batch)
        update: Update = self.objectives(student, teacher, batch)
        student_text = batch["student_text"]
        texts = (
            self._log_probs(student, teacher, batch["token"]),
            self._log_probs(*self.forward_both(student_text), student_text["token"]),
        )
        gaps = likelihood_gaps(*texts)
        base = at_progress(self.base_skew, batch)
        adapted = adaptive_skew(gaps, self.running_gap, base)
        # Before the first update there is no usual gap to compare the texts with.
        skews = torch.where(self.num_updates > 0, adapted, base)
        reverse = reverse_weight(float(batch.get("progress", 0.0)), self.gradual)
        counts = _has_both_texts(batch)
        loss = mean(distillm2_loss(*texts, skews, reverse), counts)
        update.losses["contrast"] = at_progress(self.contrast_weight, batch) * loss
        update.state_updates["gaps"] = torch.cat([gaps, counts[:, None]], 1)
        # Only the update may hold the graph while the engine runs the backward pass.
        del student, teacher, texts, loss
        yield update
        del update

    def _log_probs(self, student: Outputs, teacher: Outputs, token: Tensor) -> TextLogProbs:
        # Cut before the softmax: the padding of a head must not receive probability.
        student_log_probs, teacher_log_probs = (
            drop_unlabelled_gradient(token, to_float32(side["logits"][..., : self.vocabulary]))[0]
            for side in (student, teacher)
        )
        return student_log_probs.log_softmax(-1), teacher_log_probs.log_softmax(-1), token

    def after_step(self, gathered_rows: dict[str, Tensor]) -> None:
        rows = gathered_rows.pop("gaps")
        super().after_step(gathered_rows)
        counts = rows[:, 2:]
        gap = (rows[:, :2] * counts).sum(0) / counts.sum().clamp_min(1)
        average = GAP_DECAY * self.running_gap + (1 - GAP_DECAY) * gap
        # The first gap replaces the initial zeros.
        moved = torch.where(self.num_updates > 0, average, gap)
        self.running_gap.copy_(torch.where(counts.sum() > 0, moved, self.running_gap))
        self.num_updates += (counts.sum() > 0).long()


def _has_both_texts(batch: Batch) -> Tensor:
    """1 for each row (N,) with a teacher's and a student's text, else 0."""
    both: Tensor = batch["valid"].any(1) & batch["student_text"]["valid"].any(1)
    return both.float()
