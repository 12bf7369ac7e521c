"""Direct preference distillation: texts of the teacher against those that the student writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Teacher,
    Update,
)
from instil.functional.tokens.signals import token_role
from instil.generation.options import Sampling, SamplingOption
from instil.generation.rollout_options import RolloutOption, Rollouts
from instil.items.prefixed_rows import REJECTED
from instil.schemes.bases.preferences import (
    Beta,
    PerToken,
    PreferenceWeight,
    has_both_texts,
    preference_update,
)
from instil.schemes.bases.teacher_texts import TEXT, TeacherTexts
from instil.schemes.bases.writer import GenerativeScheme


class DPKDWritten(GenerativeScheme):
    """Training on pairs of a teacher's and a student's text for each prompt (Li et al. 2024).

    The teacher writes the preferred text once per prompt, and the student the rejected one in each
    step. The objectives, such as cross_entropy and forward_kl, apply to the teacher's texts. The
    loss ``preference`` is that of ``dpkd``.
    """

    card = Card(
        "Direct Preference Knowledge Distillation for Large Language Models",
        "https://arxiv.org/abs/2406.19774",
        "arXiv",
        2024,
        source="online",
        algorithms=("contrastive",),
        tasks=("language",),
        labels=("single",),
        equation=r"-\log \sigma\left(\beta \log \frac{p^s(y_t | x)}{p^t(y_t | x)} - "
        r"\beta \log \frac{p^s(y_s | x)}{p^t(y_s | x)}\right), \quad "
        r"y_t \sim p^t, \; y_s \sim p^s",
        use="For prompts without preference pairs, and a teacher whose texts are better than those "
        "of the student.",
        pitfalls="The student's text may be as good as the teacher's, and is rejected all the "
        "same. Long texts have large margins; `per_token` divides by the number of tokens and "
        "needs a larger `beta`. Both networks generate. Combine it with cross_entropy or "
        "forward_kl, because the loss does not hold the probability of either text up.",
        deviations="The student writes new texts in each step, or with ``rollouts`` some steps "
        "earlier; in the paper all pairs are written before the training. In the authors' code "
        "the loss compares the most likely tokens of both networks at each position of the "
        "data's text.",
    )
    needs_teacher_logits = False

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        beta: Beta = 0.1,
        per_token: PerToken = False,
        preference_weight: PreferenceWeight = 1.0,
        sampling: SamplingOption = Sampling(),
        rollouts: RolloutOption = Rollouts(),
    ):
        super().__init__(student, teacher, objectives, sampling, rollouts)
        self.teacher_texts = TeacherTexts()
        self.beta = beta
        self.per_token = per_token
        self.preference_weight = preference_weight
        self.teacher_role = "logits"

    def _limit_vocabulary(self, batch: Batch) -> None:
        super()._limit_vocabulary(batch)
        self.teacher_role = token_role(self.teacher_outputs(batch))

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {self.teacher_role}

    def before_step(self, batch: Batch) -> Batch:
        student_text = self.student_text(batch)
        rejected = {f"{REJECTED}{key}": student_text[key] for key in TEXT}
        rejected[f"{REJECTED}label"] = student_text["token"]
        return self.teacher_texts.replace_text(self, batch) | rejected

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | {"preference": has_both_texts(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield preference_update(
            self, batch, self.vocabulary, self.beta, self.per_token, self.preference_weight
        )
