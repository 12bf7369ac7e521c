"""Direct preference distillation: preferred texts against rejected ones, relative to a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from instil.core import (
    Batch,
    Card,
    Objective,
    Objectives,
    Scheme,
    Teacher,
    Update,
)
from instil.functional.tokens.signals import token_role
from instil.generation.options import Sampling
from instil.items.prefixed_rows import REJECTED
from instil.schemes.bases.common_vocabulary import common_vocabulary
from instil.schemes.bases.preferences import (
    Beta,
    PerToken,
    PreferenceWeight,
    has_both_texts,
    preference_update,
)


class DPKD(Scheme):
    """Training on pairs of a preferred and a rejected text (Li et al. 2024).

    The objectives, such as cross_entropy and forward_kl, apply to the preferred texts. The loss
    ``preference`` raises the probability of the preferred text against that of the rejected one,
    both relative to the teacher's. Rejected texts have keys that begin with ``rejected_``.
    """

    card = Card(
        "Direct Preference Knowledge Distillation for Large Language Models",
        "https://arxiv.org/abs/2406.19774",
        "arXiv",
        2024,
        source="offline",
        algorithms=("contrastive",),
        tasks=("language",),
        labels=("single",),
        tags=("changed_inputs",),
        equation=r"-\log \sigma\left(\beta \log \frac{p^s(y^+ | x)}{p^t(y^+ | x)} - "
        r"\beta \log \frac{p^s(y^- | x)}{p^t(y^- | x)}\right)",
        use="For preference pairs, such as those of DPO, and a teacher that is better than the "
        "student. The rejected texts show mistakes that the preferred ones cannot show.",
        pitfalls="The loss compares two texts and does not hold the probability of either up, so "
        "combine it with cross_entropy or forward_kl, and check that generated texts stay as "
        "good. Long texts have large margins; `per_token` divides by the number of tokens and "
        "needs a larger `beta`. The head of the student runs once more in the backward pass.",
        deviations="The pairs are part of the data. In the paper, the teacher's text is preferred "
        "to the student's, as in `dpkd_written`. In the authors' code the loss compares the "
        "most likely tokens of both networks at each position of the data's text.",
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        objectives: Objectives | Mapping[str, Objective],
        beta: Beta = 0.1,
        per_token: PerToken = False,
        preference_weight: PreferenceWeight = 1.0,
    ):
        super().__init__(student, teacher, objectives)
        self.beta = beta
        self.per_token = per_token
        self.preference_weight = preference_weight
        # Number of tokens that both networks have; ``build`` sets it.
        self.vocabulary: int | None = None
        self.teacher_role = "logits"

    def build(self, batch: Batch) -> None:
        if self.teacher is None:
            raise ValueError(
                "dpkd needs a teacher. Expected a network that rates both texts of a pair, got None"
            )
        if f"{REJECTED}input_ids" not in batch:
            raise ValueError(
                f"dpkd needs preference pairs. Expected '{REJECTED}input_ids' in the batch, got "
                f"{', '.join(batch)}. Set data.preferences=true for the source chat, or "
                "data.rationale=preference for text and arithmetic"
            )
        if "teacher_input_ids" in batch:
            raise ValueError(
                "teacher.tokenizer: dpkd compares the probabilities of texts. Expected one "
                "tokenizer for student and teacher. Leave teacher.tokenizer out"
            )
        outputs = self.forward_both(batch)
        self.vocabulary = common_vocabulary(outputs, Sampling())
        self.teacher_role = token_role(outputs[1])
        super().build(batch)

    def teacher_roles(self) -> set[str]:
        return super().teacher_roles() | {self.teacher_role}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return super().counts(batch) | {"preference": has_both_texts(batch).sum()}

    def step(self, batch: Batch) -> Iterator[Update]:
        yield preference_update(
            self, batch, self.vocabulary, self.beta, self.per_token, self.preference_weight
        )
